//! The backup.example.com API: types, validation and the generated YAML.
