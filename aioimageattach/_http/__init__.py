"""The rules of HTTP that serving files needs, as plain functions: values in, values out."""
