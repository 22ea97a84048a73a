"""Other libraries doing what an entry does, to be measured against. Nothing here is imported unless asked for."""
