{{/* The beginning of every name: the release's, with the chart's where it does not say it. */}}
{{- define "ratchet.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels that select the pods of a part. Takes (dict "root" $ "part" "operator"). */}}
{{- define "ratchet.selector" -}}
app.kubernetes.io/name: ratchet
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{/* All labels of a part. Takes (dict "root" $ "part" "operator"). */}}
{{- define "ratchet.labels" -}}
{{ include "ratchet.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: ratchet
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Full name of an image. Takes (dict "root" $ "image" .Values.images.operator). */}}
{{- define "ratchet.image" -}}
{{- $registry := required "images.registry is empty: build and push the images with `make push REGISTRY=registry.example.com/ratchet`, then add --set images.registry=registry.example.com/ratchet" .root.Values.images.registry -}}
{{- $name := printf "%s/%s" $registry .image.repository -}}
{{- if .image.digest }}{{ printf "%s@%s" $name .image.digest }}
{{- else }}{{ printf "%s:%s" $name (coalesce .image.tag .root.Values.images.tag .root.Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "ratchet.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "ratchet.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (printf "%s-operator" (include "ratchet.fullname" .)) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.create is false: give the name of one that exists by serviceAccount.name" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Of the pod: what Pod Security's level "restricted" asks for. */}}
{{- define "ratchet.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Of each container. */}}
{{- define "ratchet.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
