{{/* The labels of every object. */}}
{{- define "apikey-operator.labels" -}}
app.kubernetes.io/name: apikey-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/version: {{ include "apikey-operator.labelValue" .Chart.AppVersion | quote }}
helm.sh/chart: {{ include "apikey-operator.labelValue" (printf "%s-%s" .Chart.Name .Chart.Version) | quote }}
{{- end }}

{{/* A version as the value of a label, which has no "+" and at most 63 characters, the last of which is a letter or a digit. */}}
{{- define "apikey-operator.labelValue" -}}
{{- regexReplaceAll "[^0-9A-Za-z]+$" (. | replace "+" "_" | trunc 63) "" -}}
{{- end }}

{{/* The labels that select the pods of a component. */}}
{{- define "apikey-operator.selectorLabels" -}}
app.kubernetes.io/name: apikey-operator
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "apikey-operator.image" -}}
{{- with .Values.image -}}
{{ .repository }}
{{- if .tag }}:{{ .tag }}{{ else if not .digest }}:{{ $.Chart.AppVersion | replace "+" "_" }}{{ end }}
{{- with .digest }}@{{ . }}{{ end }}
{{- end }}
{{- end }}

{{- define "apikey-operator.consoleNamespace" -}}
{{- required "set console.namespace to the namespace whose keys the console manages" .Values.console.namespace -}}
{{- end }}
