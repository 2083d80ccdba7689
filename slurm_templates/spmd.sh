{% extends "base.sh" %}
{% block program %}
# One program on {{ directives["ntasks"] }} ranks. Each counts its fellows before it begins.
{{ launch | map("sh") | join(" ") }}
{% endblock %}
