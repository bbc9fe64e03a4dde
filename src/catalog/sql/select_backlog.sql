-- Called by: status, settled and the gauges. Locks: none.
SELECT (SELECT count(*) FROM catalog.file f JOIN catalog.micro_batch b USING (micro_batch_id)
         WHERE f.state = 'pending' AND b.state = 'live') AS files_pending,
       (SELECT count(*) FROM catalog.outbox WHERE sent_at IS NULL) AS outbox_pending,
       (SELECT count(*) FROM catalog.micro_batch
         WHERE state = 'live' AND loaded_at IS NULL AND row_out_count > 0) AS batches_unloaded
