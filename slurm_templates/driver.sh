{% extends "run.sh" %}
{% block launch %}
# The driver of the run, which submits the jobs that its workers are in, {{ workers }} at most.
{{ launch | map("sh") | join(" ") }} &
{% endblock %}
