"""The Kubernetes operator: DiffusionPipeline resources become running pipelines, in balance."""
