{{/* The beginning of the names of all that belongs to SGLang. */}}
{{- define "ratchet.sglang.name" -}}
{{ include "ratchet.fullname" . }}-sglang
{{- end }}

{{/* Full name of an image that is not ours. Takes (dict "image" .Values.sglang.image "where" "sglang.image"). */}}
{{- define "ratchet.sglang.image" -}}
{{- $name := .image.repository }}
{{- if .image.tag }}{{ $name = printf "%s:%s" $name .image.tag }}{{ end }}
{{- if .image.digest }}{{ printf "%s@%s" $name .image.digest }}
{{- else if and .image.allowTag .image.tag }}{{ $name }}
{{- else if .image.allowTag }}{{ fail (printf "%s.allowTag is true but %s.tag is empty: name the tag" .where .where) }}
{{- else }}{{ fail (printf "%s.digest is empty: give the digest (sha256:...) of the image that you have tried, or set %s.allowTag if it may change under its tag" .where .where) }}
{{- end }}
{{- end }}

{{/* Name under which the model is served. */}}
{{- define "ratchet.sglang.model" -}}
{{ coalesce .Values.sglang.model.servedName .Values.sglang.model.name }}
{{- end }}

{{/* Where the operator, or whoever else, reaches the model: the router where there is one. */}}
{{- define "ratchet.sglang.url" -}}
http://{{ include "ratchet.sglang.name" . }}{{ if .Values.sglang.router.enabled }}-router{{ end }}.{{ .Release.Namespace }}.svc:30000/v1
{{- end }}

{{/* Name of the claim with the weights. */}}
{{- define "ratchet.sglang.claim" -}}
{{- with .Values.sglang.model }}
{{- if eq .source "Claim" }}
{{- required "sglang.model.source is Claim: name the claim that holds the weights by sglang.model.claim.name" .claim.name }}
{{- else }}{{ default (printf "%s-weights" (include "ratchet.sglang.name" $)) .claim.name }}
{{- end }}
{{- end }}
{{- end }}

{{/* Folder of the weights in a pod. A revision has its own, so that a new one never meets half of an old one. */}}
{{- define "ratchet.sglang.folder" -}}
{{- with .Values.sglang.model }}
{{- if eq .source "Download" }}/models/{{ .name | replace "/" "--" }}/{{ .revision }}
{{- else }}/models{{ with .path }}/{{ . }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The volume with the weights. */}}
{{- define "ratchet.sglang.weights" -}}
- name: weights
  {{- if eq .Values.sglang.model.source "Image" }}
  image:
    reference: {{ .Values.sglang.model.image }}
    pullPolicy: {{ .Values.sglang.image.pullPolicy }}
  {{- else }}
  persistentVolumeClaim:
    claimName: {{ include "ratchet.sglang.claim" . }}
  {{- end }}
{{- end }}

{{/* Options out of a map, each as words of a list: numbers as JSON writes them, not as 1e+06. */}}
{{- define "ratchet.sglang.options" -}}
{{- range $name, $value := . }}
{{- if kindIs "bool" $value }}
{{- if $value }}
- --{{ $name }}
{{- end }}
{{- else }}
- --{{ $name }}
- {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* A variable from a Secret. Takes (dict "name" NAME "secret" VALUES "where" "sglang.apiKeySecret"). */}}
{{- define "ratchet.sglang.secretVariable" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret.name }}
      key: {{ required (printf "%s.key is empty: name the key of the Secret" .where) .secret.key }}
{{- end }}

{{/* Where pods that need the weights run. */}}
{{- define "ratchet.sglang.placement" -}}
{{- with .Values.sglang.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.sglang.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ratchet.sglang.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
{{- end }}

{{/* Refuses, with a sentence, values that do not go together. */}}
{{- define "ratchet.sglang.check" -}}
{{- $model := .Values.sglang.model }}
{{- $name := required "sglang.model.name is empty: name the model as organisation/name, or start from a file of presets/" $model.name }}
{{- if ne $model.licenceAccepted $name }}
{{- fail (printf "The licence of %s is not accepted: read it at https://huggingface.co/%s, then add --set sglang.model.licenceAccepted=%s" $name $name $name) }}
{{- end }}
{{- if and (eq $model.source "Download") (not $model.revision) }}
{{- fail (printf "sglang.model.revision is empty: give the commit to fetch, 40 digits, from https://huggingface.co/%s/commits/main" $name) }}
{{- end }}
{{- if and (eq $model.source "Image") (not $model.image) }}
{{- fail "sglang.model.source is Image: give the full name of the image with the weights, with its digest, by sglang.model.image" }}
{{- end }}
{{- if and (gt (int .Values.sglang.replicas) 1) (not .Values.sglang.router.enabled) (not .Values.endpoint.url) }}
{{- fail (printf "sglang.replicas is %d without a router: a task would meet another server, and compute its whole prompt anew, at nearly every turn. Set sglang.router.enabled, or endpoint.url to a router of your own" (int .Values.sglang.replicas)) }}
{{- end }}
{{- $longest := int (default 600 .Values.endpoint.timeouts.totalSeconds) }}
{{- $least := add (int .Values.sglang.drain.settleSeconds) $longest 80 }}
{{- if lt (int .Values.sglang.drain.graceSeconds) (int $least) }}
{{- fail (printf "sglang.drain.graceSeconds is %d, but a reply may take %d s: give at least %d, or replies that run are cut at each restart" (int .Values.sglang.drain.graceSeconds) $longest $least) }}
{{- end }}
{{- if and .Values.sglang.apiKeySecret.name .Values.defaults.namespace (not .Values.endpoint.apiKeySecret.name) }}
{{- fail "sglang.apiKeySecret is set but endpoint.apiKeySecret is not: the operator would be refused. Put the same key into a Secret of defaults.namespace and name it there" }}
{{- end }}
{{- end }}

{{/* Who may connect, as peers of a NetworkPolicy. */}}
{{- define "ratchet.sglang.mayEnter" }}
- podSelector:
    matchLabels:
      {{- include "ratchet.selector" (dict "root" . "part" "operator") | nindent 6 }}
{{- with .Values.sglang.networkPolicy.from }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The spec of the download Job's pod. */}}
{{- define "ratchet.sglang.downloadPod" }}
{{- $name := printf "%s-download" (include "ratchet.sglang.name" .) }}
{{- with .Values.sglang }}
automountServiceAccountToken: false
{{- include "ratchet.pullSecrets" $ }}
enableServiceLinks: false
# What has been fetched stays on the claim, and a new try goes on there.
restartPolicy: OnFailure
securityContext:
  {{- toYaml .podSecurityContext | nindent 2 }}
{{- include "ratchet.sglang.placement" $ }}
{{- if gt (int .replicas) 0 }}
# To the node of a server, which waits there and may share a claim that only one node can mount.
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "ratchet.selector" (dict "root" $ "part" "sglang") | nindent 12 }}
{{- end }}
containers:
  - name: download
    # The server's own image: it has the library, and is on the node already.
    image: {{ include "ratchet.sglang.image" (dict "image" .image "where" "sglang.image") }}
    imagePullPolicy: {{ .image.pullPolicy }}
    command: [python3, /etc/ratchet/download.py]
    env:
      - name: MODEL
        value: {{ .model.name }}
      - name: REVISION
        value: {{ .model.revision | quote }}
      - name: TARGET
        value: {{ include "ratchet.sglang.folder" $ }}
      - name: EXCLUDE
        value: {{ toJson .model.download.exclude | quote }}
      - name: HF_HOME
        value: /cache
      {{- if .model.download.tokenSecret.name }}
      {{- include "ratchet.sglang.secretVariable" (dict "name" "HF_TOKEN" "secret" .model.download.tokenSecret "where" "sglang.model.download.tokenSecret") | nindent 6 }}
      {{- end }}
      {{- with .model.download.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    securityContext:
      {{- include "ratchet.sglang.containerSecurity" . | nindent 6 }}
    resources:
      {{- toYaml .model.download.resources | nindent 6 }}
    volumeMounts:
      - name: weights
        mountPath: /models
      - name: cache
        mountPath: /cache
      - name: script
        mountPath: /etc/ratchet
        readOnly: true
volumes:
  {{- include "ratchet.sglang.weights" $ | nindent 2 }}
  - name: cache
    emptyDir: {}
  - name: script
    configMap:
      name: {{ $name }}
{{- end }}
{{- end }}
