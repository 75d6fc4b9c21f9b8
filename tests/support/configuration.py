"""A configuration file in which every section is used."""

from __future__ import annotations

ENVIRONMENT = {"HOME": "/home/x"}
FILE = """
store: sqlite:///var/lib/cdc-merge/state.db
http: { listen: 127.0.0.1:8787 }
settle: 2s
clock: { max_ahead: 5s }
history: { keep_folded: 10m, retention: 90d }
sources:
  crm: { type: postgres, dsn: host=x, copies: { actors: [etl] }, actor: { column: by, always_written: true } }
  erp: { type: postgres, dsn: host=y }
entities:
  customer:
    from:
      crm: { table: customer, key: no, fields: { name: name, phone: phone, points: points, prefs: prefs, city: city, zip: zip } }
      erp: { table: partner, key: code, fields: { name: title, phone: tel, points: bonus, prefs: likes, city: town, zip: code2 } }
    fields:
      phone: { merge: mv, normalize: [trim], severity: high, writers: { sources: [crm] } }
      points: { merge: counter, min: 0 }
      prefs: { merge: map, keys: { color: { merge: mv, severity: low } } }
    groups:
      address: { fields: [city, zip] }
    checks: [ { name: limit, expr: "record.points <= 100", severity: critical } ]
    deletes: review
rules:
  - { name: drift, on: customer.phone, tolerance: 10m, severity: medium }
log: { level: info }
telemetry: { otlp: "http://127.0.0.1:4318" }
"""
