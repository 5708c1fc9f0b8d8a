{{/* The image of the program, for the operator, its movers and the daemons of nodes. */}}
{{- define "orlop.image" -}}
{{ .Values.image.repository }}{{ with .Values.image.digest }}@{{ . }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}


{{- define "orlop.pullSecrets" }}
{{- with .Values.image.pullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
{{- end }}
{{- end }}

{{/* What a container may do that needs no privileges. */}}
{{- define "orlop.unprivileged" }}
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
{{- end }}

{{/* Each pod on a node of its own where there are several. */}}
{{- define "orlop.apart" }}
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 100
              podAffinityTerm:
                topologyKey: kubernetes.io/hostname
                labelSelector:
                  matchLabels:
                    app.kubernetes.io/name: {{ . }}
{{- end }}

{{/* The nodes that have pools. */}}
{{- define "orlop.onNodes" }}
      # The daemon, its keeper and the sidecars are on the same nodes. To have pools on some only, give those a label, and name it in all three.
      nodeSelector:
        {{- toYaml .Values.storage.nodeSelector | nindent 8 }}
{{- with .Values.storage.tolerations }}
      # Wherever a pod with a volume may stay, the daemon must: whatever a node is tainted with.
      tolerations:
        {{- toYaml . | nindent 8 }}
{{- end }}
{{- with .Values.priorityClasses.node }}
      priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "orlop.resources" }}
          resources:
            {{- toYaml . | nindent 12 }}
{{- end }}

{{/* Who may read metrics: everybody in the cluster, unless the values name them. */}}
{{- define "orlop.metricsFrom" }}
{{- with .Values.networkPolicies.metricsFrom }}
      from:
        {{- toYaml . | nindent 8 }}
{{- end }}
{{- end }}

{{- define "orlop.hasStorage" -}}
{{- if ne .Values.storage.mode "none" }}yes{{ end }}
{{- end }}

{{- define "orlop.hasReplicas" -}}
{{- if eq .Values.storage.mode "replicated" }}yes{{ end }}
{{- end }}
