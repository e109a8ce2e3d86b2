-- What the sessions of a restore are at: which worker's it is, how far it is with building an index, and who holds the
-- lock that it waits for. Who blocks whom is asked for those only who wait, since the answer holds up all who lock.
SELECT mine.application_name,
       building.phase, building.blocks_done, building.blocks_total, building.tuples_done, building.tuples_total,
       holder.pid, holder.application_name, holder.query,
       mine.query
  FROM pg_stat_activity AS mine
  LEFT JOIN pg_stat_progress_create_index AS building ON building.pid = mine.pid
  LEFT JOIN LATERAL (SELECT blocking.pid, other.application_name, other.query
                       FROM unnest(pg_blocking_pids(mine.pid)) AS blocking (pid)
                       LEFT JOIN pg_stat_activity AS other ON other.pid = blocking.pid
                      WHERE mine.wait_event_type = 'Lock'
                      LIMIT 1) AS holder ON true
 WHERE starts_with(mine.application_name || ':', :'name' || ':')
   AND mine.pid <> pg_backend_pid()
   AND mine.state <> 'idle'
   AND mine.backend_type = 'client backend'
