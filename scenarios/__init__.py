"""What to study: schema, library, builders, results, metrics, report, studies."""
