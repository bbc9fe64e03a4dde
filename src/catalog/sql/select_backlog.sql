-- Called by: status, settled and the gauges. Locks: none.
SELECT (SELECT count(*) FROM catalog.file f JOIN catalog.micro_batch b USING (micro_batch_id)
         WHERE f.state = 'pending' AND b.state = 'live') AS files_pending,
       (SELECT count(*) FROM catalog.file f JOIN catalog.micro_batch b USING (micro_batch_id)
         WHERE f.state <> 'hidden' AND b.state = 'dead') AS files_to_hide,
       (SELECT count(*) FROM catalog.file f JOIN catalog.micro_batch b USING (micro_batch_id)
         WHERE f.state <> 'hidden' AND b.state = 'live' AND b.mask_rev > 0 AND f.mask_rev < b.mask_rev) AS files_to_rewrite,
       (SELECT count(*) FROM catalog.outbox WHERE sent_at IS NULL) AS outbox_pending,
       (SELECT count(*) FROM catalog.micro_batch
         WHERE state = 'live' AND loaded_at IS NULL AND needs_load) AS batches_unloaded,
       (SELECT count(*) FROM catalog.source_partition WHERE replay_until IS NOT NULL) AS replays_running,
       (SELECT count(*) FROM catalog.redrive WHERE state <> 'finished') AS redrives_open
