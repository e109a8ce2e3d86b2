-- The roles of production. They belong to the whole cluster: made once, by whoever comes first.
BEGIN;
SELECT pg_advisory_xact_lock(20261121) \g /dev/null

SELECT format('CREATE ROLE %I %s', name, attributes)
  FROM (VALUES
        ('staging_owner',  'LOGIN SUPERUSER'),
        ('shop_owner',     'LOGIN'),
        ('shop_app',       'LOGIN'),
        ('shop_reader',    'NOLOGIN'),
        ('auditor',        'NOLOGIN'),
        ('replicator',     'NOLOGIN'),
        ('Reporting Team', 'NOLOGIN')
       ) AS roles (name, attributes)
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
COMMIT;
