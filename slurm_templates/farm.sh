{% extends "base.sh" %}
{% block program %}
# All tasks in this one allocation, {{ workers }} at a time.
{{ launch | map("sh") | join(" ") }}
{% endblock %}
