{% extends "run.sh" %}
{% block launch %}
# Its share of the tasks, {{ workers }} at a time. Where there is more than one array, the script is
# given the number of the first element.
{{ launch | map("sh") | join(" ") }} \
    --element "$((${1:-0} + SLURM_ARRAY_TASK_ID))" &
{% endblock %}
