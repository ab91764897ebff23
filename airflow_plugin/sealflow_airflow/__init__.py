"""sealflow for Apache Airflow."""
