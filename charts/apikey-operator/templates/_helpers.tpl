{{/* The labels of every object. */}}
{{- define "apikey-operator.labels" -}}
app.kubernetes.io/name: apikey-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{/* The labels that select the pods of a component. */}}
{{- define "apikey-operator.selectorLabels" -}}
app.kubernetes.io/name: apikey-operator
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "apikey-operator.image" -}}
{{- with .Values.image -}}
{{ .repository }}
{{- if .tag }}:{{ .tag }}{{ else if not .digest }}:{{ $.Chart.AppVersion }}{{ end }}
{{- with .digest }}@{{ . }}{{ end }}
{{- end }}
{{- end }}

{{- define "apikey-operator.consoleNamespace" -}}
{{- required "set console.namespace to the namespace whose keys the console manages" .Values.console.namespace -}}
{{- end }}
