"""The Kubernetes operator: DiffusionPipeline resources become running pipelines, kept in balance."""
