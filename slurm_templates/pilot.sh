{% extends "base.sh" %}
{% block how %}; the driver of a run gives it to sbatch{% endblock %}
{% block options %}
{{ super() }}
export HPCKIT_BEGAN="$(date +%s)"
{% endblock %}
{% block program %}
# Workers for the driver of the run, {{ workers }} tasks at a time, until it ends them or is gone itself.
exec {{ launch | map("sh") | join(" ") }}
{% endblock %}
