"""The Jinja templates of batch scripts; see `hpckit.render.script`."""
