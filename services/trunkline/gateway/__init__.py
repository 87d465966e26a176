"""The HTTP edge: any OpenAI client works here. It talks to the rest of the gateway over NATS and nothing else."""
