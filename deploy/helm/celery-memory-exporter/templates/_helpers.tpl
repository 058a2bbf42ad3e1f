{{- define "celery-memory-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "celery-memory-exporter.fullname" -}}
{{- $name := include "celery-memory-exporter.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "celery-memory-exporter.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "celery-memory-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: exporter
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Of the pods that have an exporter: in mode sidecar these are your workers', with their own app.kubernetes.io labels. */}}
{{- define "celery-memory-exporter.selectorLabels" -}}
{{- if eq .Values.mode "sidecar" -}}
celery-memory-exporter/sidecar: {{ include "celery-memory-exporter.fullname" . }}
{{- else -}}
app.kubernetes.io/name: {{ include "celery-memory-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- end }}

{{- define "celery-memory-exporter.serviceAccountName" -}}
{{- $created := default (include "celery-memory-exporter.fullname" .) .Values.serviceAccount.name }}
{{- ternary $created (default "default" .Values.serviceAccount.name) .Values.serviceAccount.create }}
{{- end }}

{{/* The Secret with the broker's URL, and its key. */}}
{{- define "celery-memory-exporter.brokerSecret" -}}
{{- if .Values.fleet.broker.url -}}
name: {{ include "celery-memory-exporter.fullname" . }}-broker
key: url
{{- else -}}
{{- toYaml .Values.fleet.broker.existingSecret }}
{{- end }}
{{- end }}

{{/* The exporter's container: the same in every mode, but for its rights and the broker. */}}
{{- define "celery-memory-exporter.container" -}}
name: celery-memory-exporter
image: {{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [celery-memory-exporter, serve, --config, /etc/celery-memory-exporter/config.yaml]
env:
  - name: CELERY_MEMORY_LISTEN_ADDRESS
    value: ":{{ .Values.port }}"
  {{- if and (eq .Values.mode "fleet") (not .Values.configSecret) }}
  - name: CELERY_MEMORY_BROKER_URL
    valueFrom:
      secretKeyRef:
        {{- include "celery-memory-exporter.brokerSecret" . | nindent 8 }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - name: metrics
    containerPort: {{ .Values.port }}
livenessProbe:
  httpGet:
    path: /-/healthy
    port: metrics
  timeoutSeconds: 5
{{- if ne .Values.mode "sidecar" }}
# Fails while the broker cannot be reached. /metrics goes on answering, and says so.
readinessProbe:
  httpGet:
    path: /-/ready
    port: metrics
  timeoutSeconds: 5
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- toYaml (index .Values .Values.mode).securityContext | nindent 2 }}
volumeMounts:
  - name: celery-memory-exporter-config
    mountPath: /etc/celery-memory-exporter
    readOnly: true
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "celery-memory-exporter.volumes" -}}
- name: celery-memory-exporter-config
  {{- if .Values.configSecret }}
  secret:
    secretName: {{ .Values.configSecret }}
  {{- else }}
  configMap:
    name: {{ include "celery-memory-exporter.fullname" . }}
  {{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The pod of modes fleet and daemonset. */}}
{{- define "celery-memory-exporter.podTemplate" -}}
metadata:
  labels:
    {{- include "celery-memory-exporter.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ list .Values.config .Values.fleet.broker.url | toJson | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "celery-memory-exporter.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- if eq .Values.mode "daemonset" }}
  # To see the workers of the node's other pods in /proc.
  hostPID: true
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  securityContext:
    {{- toYaml (index .Values .Values.mode).podSecurityContext | nindent 4 }}
  containers:
    - {{ include "celery-memory-exporter.container" . | nindent 6 | trim }}
  volumes:
    {{- include "celery-memory-exporter.volumes" . | nindent 4 }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" }}
  {{- with index $.Values $key }}
  {{ $key }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- end }}

{{/* Those files of the chart; a chart fetched without its symbolic links (files/ points to grafana/) must not install nothing. */}}
{{- define "celery-memory-exporter.require" -}}
{{- if not (.files.Glob .pattern) }}
{{- fail (printf "%s: no such files in this chart; install it from the archive that helm package makes" .pattern) }}
{{- end }}
{{- end }}

{{/* grafana/rules with your links in place of the placeholders, and without the annotation where you gave none. */}}
{{- define "celery-memory-exporter.rules" -}}
{{- include "celery-memory-exporter.require" (dict "files" .Files "pattern" "files/rules/*.yaml") }}
{{- $links := dict "runbook_url" .Values.runbookUrl "dashboard_url" .Values.grafanaUrl }}
{{- $hosts := dict "runbook_url" "https://runbooks.example.com/celery" "dashboard_url" "https://grafana.example.com" }}
{{- $groups := list }}
{{- range $path, $bytes := .Files.Glob "files/rules/*.yaml" }}
{{- $groups = concat $groups (fromYaml (toString $bytes)).groups }}
{{- end }}
{{- range $group := $groups }}
{{- range $rule := $group.rules }}
{{- range $annotation, $url := $links }}
{{- if and $rule.annotations (hasKey $rule.annotations $annotation) }}
{{- if $url }}
{{- $_ := set $rule.annotations $annotation (index $rule.annotations $annotation | replace (index $hosts $annotation) (trimSuffix "/" $url)) }}
{{- else }}
{{- $_ := unset $rule.annotations $annotation }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml (dict "groups" $groups) }}
{{- end }}
