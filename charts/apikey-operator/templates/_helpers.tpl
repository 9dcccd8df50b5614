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

{{/* Whether the release has the admission webhook, whose configuration applies to the whole cluster. */}}
{{- define "apikey-operator.hasWebhook" -}}
{{- if and .Values.webhook.enabled (eq .Values.scope "all") }}true{{ end }}
{{- end }}

{{/* The namespaces whose keys the processes serve, as a YAML list. An empty name stands for all namespaces. */}}
{{- define "apikey-operator.servedNamespaces" -}}
{{- if eq .Values.scope "namespaces" -}}
{{ prepend .Values.namespaces .Release.Namespace | uniq | toYaml }}
{{- else -}}
[""]
{{- end }}
{{- end }}

{{- define "apikey-operator.namespacesFlag" -}}
{{- if eq .Values.scope "namespaces" -}}
- --namespaces=$(POD_NAMESPACE){{ range without .Values.namespaces .Release.Namespace | uniq }},{{ . }}{{ end }}
{{- end }}
{{- end }}

{{- define "apikey-operator.namespacesVariable" -}}
{{- if eq .Values.scope "namespaces" -}}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: metadata.namespace
{{- end }}
{{- end }}

{{/* Whether the controller records the last use of tokens, for which authenticators need a permission for the cluster. */}}
{{- define "apikey-operator.recordsLastUse" -}}
{{- if and .Values.lastUse.enabled (eq .Values.scope "all") }}true{{ end }}
{{- end }}

{{/* Whether the controller issues the certificate of the console. */}}
{{- define "apikey-operator.mintsForConsole" -}}
{{- if and .Values.console.enabled (ne .Values.scope "cluster") (eq .Values.certificates.source "minted") (eq .Values.console.certificateSecret "apikey-console-tls") -}}
true
{{- end }}
{{- end }}
