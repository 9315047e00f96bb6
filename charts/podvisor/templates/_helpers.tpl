{{/* Image of a service: (list $ "controller"). */}}
{{- define "podvisor.image" -}}
{{- $root := index . 0 }}{{ $service := index . 1 }}{{ $image := $root.Values.image }}
{{- $tag := index $image.tags $service | default $image.tag | default $root.Chart.AppVersion }}
{{- index $image.references $service | default (printf "%s/virt-%s:%s" $image.registry $service $tag) }}
{{- end }}

{{/* Labels of every object: (list $ "virt-controller"). */}}
{{- define "podvisor.labels" -}}
{{- $root := index . 0 -}}
{{ include "podvisor.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: podvisor
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | quote }}
{{- end }}

{{/* Labels that select the pods of a component, the same for the life of a release. */}}
{{- define "podvisor.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: podvisor
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* spec of the KubeVirt object, as JSON. The values of a release before this one, which --reuse-values brings, may lack the binding: nobody
asked for a bridge by that, as one does by the empty word. */}}
{{- define "podvisor.kubevirtSpec" -}}
{{- $spec := deepCopy .Values.kubevirt }}
{{- $configuration := $spec.configuration | default dict }}
{{- $network := $configuration.network | default dict }}
{{- if not (hasKey $network "defaultNetworkInterface") }}
{{- $_ := set $network "defaultNetworkInterface" "masquerade" }}
{{- end }}
{{- $_ := set $configuration "network" $network }}
{{- $_ := set $spec "configuration" $configuration }}
{{- $spec | toJson }}
{{- end }}

{{/* securityContext of a container that needs nothing. */}}
{{- define "podvisor.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* securityContext of a pod that needs nothing. */}}
{{- define "podvisor.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "podvisor.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Environment that every service reads. */}}
{{- define "podvisor.environment" -}}
- name: LOG_LEVEL
  value: {{ .Values.logLevel }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- end }}

{{/* Probes on the observability port. None asks the API server anything. */}}
{{- define "podvisor.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 1
  timeoutSeconds: 2
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}
