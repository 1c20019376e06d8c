"""Text: files to documents, documents to rows of tokens, and which language they are in."""
