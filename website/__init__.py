"""The documentation site: `pages` makes what is not written by hand, `hook` hands it to mkdocs."""
