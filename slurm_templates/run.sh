{#- Scripts of a run that is there already, which may have to stop and go on. #}
{% extends "base.sh" %}
{% block how %}; `hpckit submit` gives it to sbatch{% endblock %}
{% block program %}
# However it ends, its exit status is left in a file: not every cluster remembers it.
exits={{ exits | sh }}
trap 'echo "$?" > "$exits/{{ id }}"' EXIT

# Slurm sends {{ signal }} when the time is nearly up, and hpckit hears of it: it saves what there is
# and ends with status {{ time_is_up }}. The job then goes back to the queue, and on from there.
trap 'kill -{{ signal }} "$program" 2> /dev/null || :' {{ signal }}
{% if signal != "TERM" %}
# TERM comes when the job is cancelled or must make way.
trap 'kill -TERM "$program" 2> /dev/null || :' TERM
{% endif %}
{% block launch required %}{% endblock %}
program=$!
# A signal ends a wait, but not what is waited for.
until wait "$program"; ! kill -0 "$program" 2> /dev/null; do :; done
wait "$program" || status=$?
if [ "${status:-0}" -eq {{ time_is_up }} ] && [ "${SLURM_RESTART_COUNT:-0}" -lt {{ max_restarts }} ]; then
    scontrol requeue "$SLURM_JOB_ID" || :
fi
exit "${status:-0}"
{% endblock %}
