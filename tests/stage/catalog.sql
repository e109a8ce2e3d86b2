-- What a database's catalog knows and a dump of it does not tell: whether indexes are valid, views are filled and
-- constraints hold, and every object that depends on another, so that nothing is there that should not be.
SELECT format('index %s %s %s %s', indexrelid::regclass, indisvalid, indisready, indisclustered) FROM pg_index WHERE indexrelid >= 16384 AND indrelid::regclass::text NOT LIKE 'pg_toast%'
 UNION ALL
SELECT format('relation %s %s %s %s', oid::regclass, relispopulated, relhasindex, relhastriggers) FROM pg_class
 WHERE oid >= 16384 AND relname NOT LIKE 'pg_toast%'
 UNION ALL
SELECT format('constraint %s %s %s %s', conname, convalidated, conislocal, coninhcount) FROM pg_constraint WHERE oid >= 16384
 UNION ALL
SELECT format('%s needs %s', pg_describe_object(classid, objid, objsubid), pg_describe_object(refclassid, refobjid, refobjsubid))
  FROM pg_depend
 WHERE objid >= 16384 AND deptype IN ('n', 'a', 'e') AND pg_describe_object(classid, objid, objsubid) !~ 'pg_toast|RI_ConstraintTrigger'
 UNION ALL
SELECT format('database %s %s', datacl, datconnlimit) FROM pg_database WHERE datname = current_database()
 UNION ALL
SELECT format('setting %s %s', setrole::regrole, setconfig) FROM pg_db_role_setting
 WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database());
