"""The rooms that know ESPnet's trainer and its YAML files."""
