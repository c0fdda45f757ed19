"""JSON Schema -> grammar. Every sentence is valid JSON that the schema accepts; where a grammar
can't say exactly what the schema says, it says less, never more."""
