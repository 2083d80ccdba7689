{#- The frame of every script. A site's template folder may hold a file of the same name, or one
    that extends "hpckit/spmd.sh" and overrides some of its blocks. #}
#!/bin/bash
# {{ title }}
# Rendered by hpckit {{ version }} for the site {{ site.name }}{% block how %}; sbatch runs it as it is{% endblock %}.
{% block directives %}
{% for name, value in directives.items() %}
#SBATCH --{{ name }}{% if value is not none %}={{ value | directive }}{% endif %}

{% endfor %}
{% endblock %}

{% block options %}
set -eo pipefail
{% endblock %}
{% block environment %}
{% if site.modules or site.prologue or variables %}

# What the programs find when they start.
{% for name in site.modules %}
module load {{ name | sh }}
{% endfor %}
{% for line in site.prologue %}
{{ line }}
{% endfor %}
{% for name, value in variables.items() %}
export {{ name }}={{ value | sh }}
{% endfor %}
{% endif %}
{% endblock %}

{% if kept %}
# Nothing else of this environment is to reach the image.
for name in $(compgen -e); do
    case "$name" in
        {{ kept | batch(8) | map("join", " | ") | join(" | \\\n        ") }}) ;;
        *) unset "$name" 2> /dev/null || : ;;
    esac
done

{% endif %}
{% block program required %}{% endblock %}
