{% extends "run.sh" %}
{% block launch %}
# One program on {{ directives["ntasks"] }} ranks. Each counts its fellows before it begins.
{{ launch | map("sh") | join(" ") }} &
{% endblock %}
