"""Model providers: each translates between the field's dialect and one vendor's, no more."""
