"""The page of ``--bpf-report``: what it shows, the records of earlier runs, charts, and the templates."""
