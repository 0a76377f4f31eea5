"""The faults that the library must survive, by number, and the tests that cover them.

``python -m tests.faults.matrix`` prints the files of those tests that are in other folders.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MATRIX", "Fault"]

BUCKET = "tests/stores/s3"
CLIENT = f"{BUCKET}/test_client.py"
COLUMNS = "tests/faults/database/test_columns_that_name_files.py"
COPIES = "tests/faults/test_copies.py"
CONTEXT = "tests/test_context.py"
DIRECTORY = "tests/stores/fs/test_store.py"
EFFECTLESS = "tests/faults/database/test_deletes_without_effect.py"
ENDINGS = "tests/faults/test_endings.py"
ERRORS = "tests/faults/test_errors.py"
HANDS = "tests/faults/database/test_files_that_change_hands.py"
HIDDEN = "tests/faults/database/test_hidden_endings.py"
FENCE = "tests/_transaction/test_fence.py"
KILLS = "tests/faults/kill/test_kill.py"
LIFETIMES = "tests/faults/database/test_lifetimes.py"
LIVES = "tests/faults/test_row_lives.py"
LOCKS = "tests/faults/database/test_locks.py"
MOVES = "tests/faults/database/test_rows_that_move.py"
OPTIONS = "tests/faults/database/test_session_options.py"
ORACLE = "tests/faults/database/test_oracle.py"
SENDER = f"{BUCKET}/test_sender.py"
SERVERS = "tests/faults/kill/test_serve.py"
SETS = "tests/entity/test_imageset.py"
SOFT = "tests/faults/database/test_soft_delete.py"
SWALLOWED = "tests/faults/database/test_swallowed_errors.py"
SWEEP = "tests/maintenance/test_sweep.py"
TAKEN_BACK = "tests/faults/database/test_taken_back.py"
TOGETHER = "tests/faults/test_concurrency.py"
VERIFY = "tests/maintenance/test_verify.py"
WORKED = "tests/faults/test_cancellation.py"


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        name: A description.
        proofs: The tests that cover it, by file; each word is the rest of a function's name.
        reason: The reason why it has no test, if it has none.
    """

    name: str
    proofs: tuple[tuple[str, str], ...] = ()
    reason: str = ""

    @property
    def tests(self) -> tuple[str, ...]:
        """Return the tests as pytest names them, without their parameters."""
        return tuple(f"{path}::test_{name}" for path, names in self.proofs for name in names.split())


MATRIX: dict[int, Fault] = {
    1: Fault(
        "an exception in the flush",
        (
            (ERRORS, "a_violated_constraint a_hook_of_the_application_raises an_error_in_the_handler"),
            ("tests/faults/test_every_call.py", "of_the_database"),
        ),
    ),
    2: Fault("COMMIT rejected by the database", ((ERRORS, "a_refused_commit"),)),
    3: Fault(
        "a serialization failure or a deadlock, with a retry",
        ((ERRORS, "a_serialization_failure_and_the_retry a_deadlock_and_the_retry"),),
    ),
    4: Fault(
        "the database backend is killed before COMMIT",
        (
            (ERRORS, "the_backend_is_killed_before_commit"),
            ("tests/faults/test_every_call.py", "of_the_database"),
        ),
    ),
    5: Fault(
        "COMMIT succeeds, but its response is lost",
        (("tests/faults/test_outcomes.py", "the_reply_is_lost the_reply_is_lost_with_a_savepoint_left_open"),),
    ),
    6: Fault("COMMIT never reaches the database", (("tests/faults/test_outcomes.py", "the_commit_never_arrives"),)),
    7: Fault(
        "a timeout or a cancellation during COMMIT",
        (("tests/faults/test_outcomes.py", "a_commit_that_takes_too_long"),),
    ),
    8: Fault(
        "every way to end a session without a commit", ((ENDINGS, "every_way_to_give_up left_by_the_block_alone"),)
    ),
    9: Fault("a session that is never closed", ((ENDINGS, "forgotten"),)),
    10: Fault("savepoints rolled back", ((ENDINGS, "savepoints_rolled_back"),)),
    11: Fault(
        "released savepoints in a transaction that is rolled back",
        ((ENDINGS, "savepoints_released savepoints_released_and_all_rolled_back"),),
    ),
    12: Fault("a violated constraint in a savepoint", ((ENDINGS, "a_violated_constraint_in_a_savepoint"),)),
    13: Fault(
        "a session in a transaction of its connection",
        (
            (
                ENDINGS,
                "a_session_in_a_transaction_of_its_connection a_rollback_in_a_transaction_of_its_connection"
                " a_session_bound_by_class_to_a_connection",
            ),
        ),
    ),
    14: Fault("AUTOCOMMIT", ((ENDINGS, "autocommit sqlite_without_the_recipe"),)),
    15: Fault(
        "two-phase commits whose second phase does not follow",
        (
            ("tests/faults/test_two_phases.py", "committed nobody_there_for_the_second"),
            (SWEEP, "postgresql_that_hides_rows recently_prepared_transactions"),
        ),
    ),
    16: Fault(
        "cancellations at each await",
        (
            (
                WORKED,
                "replacing_a_picture savepoints rolling_back_and_closing each_operation with_a_directory with_a_bucket"
                " reading a_sibling_fails cancelled_while_many_are_uploaded",
            ),
            (SWEEP, "a_sweep_is_cancelled"),
            (VERIFY, "a_verification_is_cancelled"),
        ),
    ),
    17: Fault(
        "cancellations while a thread writes",
        (
            (WORKED, "a_thread_that_writes_while_its_caller_is_cancelled"),
            (DIRECTORY, "a_put_is_cancelled_while_a_thread_writes a_put_is_cancelled_by_scopes_and_timeouts"),
        ),
    ),
    18: Fault(
        "a second cancellation during the clean-up",
        ((WORKED, "cancelled_again_while_it_cleans_up replacing_a_picture each_operation"),),
    ),
    19: Fault(
        "SIGKILL",
        (
            (KILLS, "at_each_step at_random at_each_system_call in_an_upload_of_parts"),
            (KILLS, "files_in_a_directory files_in_a_bucket"),
            ("tests/faults/kill/test_thumbnails.py", "servers_are_killed"),
        ),
    ),
    20: Fault(
        "a power failure",
        (
            ("tests/faults/test_durability.py", "everything_is_on_the_disk_before_the_commit"),
            (DIRECTORY, "the_order_of_disk_operations"),
        ),
    ),
    21: Fault(
        "one of many puts fails",
        ((ERRORS, "a_put_fails whichever_of_many_puts_fails"), ("tests/faults/test_every_call.py", "of_the_store")),
    ),
    22: Fault(
        "a put that is too slow",
        (
            (ERRORS, "a_deadline_around_a_put_that_hangs a_put_that_cannot_be_stopped"),
            (f"{BUCKET}/test_faults.py", "a_network_that_drops_responses a_server_that_stops_reading"),
        ),
    ),
    23: Fault(
        "a full or failing disk",
        (
            (DIRECTORY, "a_put_on_a_failing_disk a_partially_written_file_is_removed"),
            ("tests/faults/test_disk.py", "a_full_disk a_file_larger_than_is_allowed"),
        ),
    ),
    24: Fault(
        "a directory that is missing, read-only or without permissions; no free descriptors",
        (
            (DIRECTORY, "a_directory_without_permission a_root_in_a_missing_directory a_root_that_is_a_file"),
            (
                "tests/faults/test_disk.py",
                "a_read_only_disk no_file_can_be_opened a_root_that_is_gone a_root_that_is_a_file",
            ),
        ),
    ),
    25: Fault(
        "transient failures of an S3 server",
        (
            (f"{BUCKET}/test_faults.py", "a_server_that_recovers a_server_that_does_not_recover"),
            (SENDER, "transient_errors_are_retried the_number_of_attempts_is_limited the_timeout_ends_attempts"),
        ),
    ),
    26: Fault(
        "connections that break at any point",
        (
            (
                f"{BUCKET}/test_faults.py",
                "a_connection_that_breaks_during_the_request a_connection_that_breaks_during_the_response",
            ),
            (SENDER, "a_put_whose_response_was_lost"),
        ),
    ),
    27: Fault(
        "a truncated response",
        (
            (f"{BUCKET}/test_faults.py", "a_truncated_response"),
            (SENDER, "reading_resumes_after_a_break a_response_of_unknown_length"),
        ),
    ),
    28: Fault(
        "incorrect bytes from S3",
        ((SENDER, "an_object_that_is_replaced_while_it_is_read"), (CLIENT, "checksums")),
    ),
    29: Fault(
        "a wrong region, or wrong keys",
        ((f"{BUCKET}/test_faults.py", "wrong_keys"), (SENDER, "another_region"), (CLIENT, "refusals")),
    ),
    30: Fault("a wrong clock", ((SENDER, "clock_skew_is_corrected clock_skew_that_cannot_be_corrected"),)),
    31: Fault(
        "credentials that expire", ((SENDER, "credentials_that_expire_are_renewed credentials_that_stay_expired"),)
    ),
    32: Fault(
        "a multipart upload that fails",
        (
            (f"{BUCKET}/test_faults.py", "a_failed_multipart_upload"),
            (SENDER, "a_part_that_fails a_cancelled_multipart_upload_leaves_no_parts"),
            (f"{BUCKET}/test_store.py", "uploads_of_killed_processes"),
            (KILLS, "in_an_upload_of_parts"),
        ),
    ),
    33: Fault(
        "a delete that fails after the commit",
        (
            (ERRORS, "a_delete_fails_after_the_commit a_delete_that_hangs_has_a_limit"),
            (f"{BUCKET}/test_faults.py", "a_delete_that_fails_does_not_fail_the_commit"),
        ),
    ),
    34: Fault("a file that was already deleted", ((ERRORS, "a_file_that_is_gone_already"), (TOGETHER, "two_delete"))),
    35: Fault(
        "two transactions replace one image",
        ((TOGETHER, "two_replace two_attach_the_first two_replace_on_sqlite"), (KILLS, "at_random")),
    ),
    36: Fault(
        "one transaction replaces and another one deletes an image", ((TOGETHER, "one_replaces_and_one_deletes"),)
    ),
    37: Fault("two requests for one thumbnail", ((TOGETHER, "two_want_one_thumbnail"),)),
    38: Fault(
        "a thumbnail of an original that is replaced meanwhile",
        ((TOGETHER, "a_thumbnail_of_a_picture_that_is_replaced_meanwhile"),),
    ),
    39: Fault(
        "a hundred requests for one thumbnail",
        ((TOGETHER, "a_hundred_want_one_thumbnail"), (SETS, "a_hundred_tasks_make_one_thumbnail")),
    ),
    40: Fault("rows that a commit has expired", ((COPIES, "after_a_commit_with_the_sessions_defaults"),)),
    41: Fault(
        "owners that are detached, pickled or copied",
        ((COPIES, "detached a_new_owner_is_pickled a_new_owner_is_copied"),),
    ),
    42: Fault(
        "rows that are merged, created again or moved to another owner",
        (
            (
                COPIES,
                "a_new_owner_is_merged merging_a_row_that_was_changed_meanwhile a_row_given_to_another_owner"
                " a_row_moved_to_another_owner",
            ),
        ),
    ),
    43: Fault(
        "two sessions, two stores", ((COPIES, "two_sessions_want_one_owner each_picture_goes_to_its_own_store"),)
    ),
    44: Fault(
        "keys that change, and keys of all types",
        (
            (LIVES, "a_changed_primary_key_changes_no_file"),
            ("tests/entity/test_image.py", "uuid_owners text_keys_need_no_object_id_in_the_built_in_stores"),
        ),
    ),
    45: Fault(
        "owners with inheritance",
        ((COPIES, "owners_that_inherit"), ("tests/entity/test_owners.py", "an_owner_of_each_kind_has_a_picture")),
    ),
    46: Fault(
        "rows changed in bulk, by Core and by raw SQL",
        (
            (
                LIVES,
                "bulk_deletes_of_loaded_rows_remove_files deletes_behind_our_back_leave_orphans_only"
                " bulk_updates_are_nobodys_files a_row_made_by_hand_is_refused",
            ),
            (SWEEP, "bulk_deletes_leave_orphans"),
        ),
    ),
    47: Fault(
        "rows deleted by the database; other classes",
        (
            (LIVES, "deletes_behind_our_back_leave_orphans_only"),
            (COPIES, "other_classes_are_not_touched"),
            (SWEEP, "other_files_are_not_touched"),
        ),
    ),
    48: Fault(
        "images that are replaced, deleted and added again in one transaction",
        (
            (LIVES, "replaced_again_and_again a_row_deleted_and_added_again_keeps_its_file"),
            ("tests/faults/test_programs.py", "a_program a_program_on_a_server a_state_machine"),
        ),
    ),
    49: Fault("a request that is sent twice", ((COPIES, "the_retried_request"),)),
    50: Fault(
        "a handler that raises an error, a client that disconnects",
        (
            (ENDINGS, "a_web_frameworks_dependency"),
            (SERVERS, "a_client_that_leaves_in_the_middle_of_its_upload a_client_that_leaves_before_its_answer"),
        ),
    ),
    51: Fault(
        "clients that disconnect during a download", (("tests/stores/fs/test_static.py", "clients_that_disconnect"),)
    ),
    52: Fault("a server that receives SIGTERM", ((SERVERS, "a_server_that_is_told_to_end"),)),
    53: Fault(
        "forks, threads and several event loops",
        (
            ("tests/test_threads.py", "a_forked_child_creates_new_pools"),
            (CLIENT, "each_event_loop_has_its_own_connections"),
            ("tests/stores/fs/test_static.py", "loops_in_several_threads"),
            (KILLS, "at_random"),
        ),
    ),
    54: Fault(
        "the store of the context",
        (
            (CONTEXT, "tasks_do_not_see_stores_of_other_tasks a_task_inherits_the_store_at_its_creation threads"),
            (CONTEXT, "a_generator_suspended_inside_a_context without_any_store"),
        ),
    ),
    55: Fault(
        "a sweep during uploads and long transactions",
        (
            (SWEEP, "a_sweep_during_uploads a_row_that_appears_during_the_sweep_keeps_its_file a_short_grace_time"),
            (FENCE, "an_old_transaction_is_not_committed"),
        ),
    ),
    56: Fault(
        "a sweep with a wrong, empty or unavailable database",
        (
            (
                SWEEP,
                "an_empty_database_is_refused too_large_a_share_is_refused a_listing_that_fails_half_way"
                " a_database_that_is_unavailable postgresql_that_hides_rows",
            ),
        ),
    ),
    57: Fault("two concurrent sweeps", ((SWEEP, "concurrent_sweeps"), (KILLS, "at_each_step"))),
    58: Fault("altered or missing files", ((VERIFY, "missing_and_altered_files_are_reported"),)),
    59: Fault(
        "an error that the application ignores before the commit",
        (
            (
                SWALLOWED,
                "postgresql_answers_commit_with_rollback a_deadlock_on_mariadb a_conflict_that_rolls_back_on_sqlite"
                " statements_after_a_conflict_on_sqlite_are_permanent a_failed_statement_in_a_savepoint"
                " the_session_continues_after_the_silent_rollback",
            ),
            (ORACLE, "the_database_is_the_oracle"),
        ),
    ),
    60: Fault(
        "savepoints and ends of transactions of which the session is not notified",
        (
            (
                HIDDEN,
                "a_savepoint_of_the_connection a_savepoint_in_sql"
                " a_savepoint_of_the_connection_within_one_of_the_session rolled_back_by_a_statement"
                " committed_by_a_statement a_table_is_made_on_mariadb a_table_is_made_in_a_savepoint_on_mariadb"
                " a_driver_that_commits_by_itself autocommit_by_a_statement_on_mariadb"
                " the_database_is_down_when_it_is_asked",
            ),
            (ORACLE, "the_database_is_the_oracle"),
        ),
    ),
    61: Fault(
        "a DELETE or UPDATE that matches no row, or that a trigger undoes",
        (
            (
                EFFECTLESS,
                "a_bulk_delete_evaluated_on_an_unflushed_change a_bulk_delete_that_matches_a_stale_object"
                " a_bulk_delete_of_a_row_that_was_replaced_meanwhile a_trigger_that_forbids_deletions"
                " a_rule_that_forbids_deletions a_trigger_that_keeps_the_old_value",
            ),
        ),
    ),
    62: Fault(
        "the key of an owner and its image are changed in one flush",
        ((EFFECTLESS, "the_owners_key_changes_in_the_same_flush"),),
    ),
    63: Fault(
        "a stale owner that is merged; columns that are part of file names",
        (
            (
                COLUMNS,
                "a_cached_owner_is_merged a_cached_owner_is_merged_without_loading assigned updated_in_bulk"
                " assigned_by_a_hook_of_the_application two_rows_exchange_their_revisions"
                " a_column_that_the_name_is_computed_from",
            ),
        ),
    ),
    64: Fault(
        "rows that are written without the hooks",
        (
            (
                "tests/faults/database/test_rows_without_files.py",
                "added_by_a_hook_of_the_application written_in_bulk_by_the_session"
                " written_by_an_insert_of_the_class a_handle_of_a_failed_flush_in_a_statement",
            ),
        ),
    ),
    65: Fault(
        "copies of one prepared owner that are flushed together",
        (("tests/faults/database/test_copies_at_once.py", "flushed_at_once many_at_once"),),
    ),
    66: Fault(
        "a file that one row loses and another row adopts",
        (
            (
                HANDS,
                "given_up_by_one_row_and_adopted_by_another passed_on_twice two_stores_of_one_directory"
                " two_stores_of_one_bucket adopted_while_another_transaction_deletes"
                " a_former_picture_is_kept_by_another_class",
            ),
        ),
    ),
    67: Fault(
        "references that are copied within the database",
        (
            (
                HANDS,
                "a_row_copied_by_insert_from_select a_value_copied_by_update references_copied_to_another_column"
                " image_rows_copied_into_the_table_of_another_class copied_in_the_transaction_that_deletes",
            ),
        ),
    ),
    68: Fault(
        "rows that move while other rows take their keys",
        (
            (
                MOVES,
                "a_gallery_is_shifted_for_a_new_first_photo a_gallery_of_many_is_shifted"
                " a_picture_moves_and_another_takes_its_place a_picture_moves_and_its_owner_is_deleted"
                " a_place_is_emptied_and_deleted",
            ),
        ),
    ),
    69: Fault(
        "deletions that the application undoes",
        (
            (
                SOFT,
                "an_owner_is_taken_back a_deleted_picture_is_taken_back only_the_original_is_taken_back"
                " a_gallery_is_taken_back taken_back_once_and_deleted_then",
            ),
        ),
    ),
    70: Fault(
        "two attachments of one image class",
        (
            (
                "tests/faults/database/test_two_attachments_of_one_class.py",
                "attached thumbnails one_is_replaced both_are_replaced one_is_deleted",
            ),
        ),
    ),
    71: Fault(
        "unflushed changes of the application, and eager relationships",
        (
            (
                "tests/faults/database/test_unflushed_changes.py",
                "names_of_owners_and_captions_of_pictures a_changed_owner_in_a_batch a_value_is_replaced",
            ),
        ),
    ),
    72: Fault(
        "filters, replicas and several engines",
        (
            (SOFT, "soft_deleted_pictures_are_purged a_soft_deleted_picture_is_replaced criteria_on_all_image_classes"),
            (
                OPTIONS,
                "reads_by_an_engine_that_commits_each_statement reads_by_a_replica a_replica_that_lags"
                " an_engine_by_mapper binds_by_class",
            ),
        ),
    ),
    73: Fault(
        "owners that are expired, refreshed or expunged after an attachment",
        ((TAKEN_BACK, "an_attached_picture_is_taken_back an_attached_picture_that_is_still_pending"),),
    ),
    74: Fault(
        "attachments to an owner that is then deleted; keys that the database returns in another form",
        (
            (
                TAKEN_BACK,
                "attached_to_an_owner_that_is_deleted attached_to_a_deleted_owner keys_in_another_form",
            ),
        ),
    ),
    75: Fault(
        "image sets that a query has loaded partly",
        (("tests/faults/database/test_narrowed_sets.py", "deleted a_thumbnail replaced a_gallery"),),
    ),
    76: Fault(
        "many transactions replace the image of one owner",
        (
            (
                LOCKS,
                "one_picture_is_replaced_by_many replaced_deleted_and_given_thumbnails owners_are_locked_in_one_order",
            ),
        ),
    ),
    77: Fault(
        "the library is imported while sessions are open",
        ((LIFETIMES, "imported_while_a_session_is_open imported_by_a_hook_in_a_flush"),),
    ),
    78: Fault(
        "hooks of the application that call the library",
        ((LOCKS, "a_hook_calls_the_library a_hook_wants_the_same_thumbnail"),),
    ),
    79: Fault("objects that are never freed", ((LIFETIMES, "nothing_outlives_its_session a_handle_keeps_no_session"),)),
    80: Fault(
        "an event loop for each job",
        ((LIFETIMES, "thumbnails_in_many_loops uploads_in_many_loops a_bucket_in_many_loops"),),
    ),
    81: Fault(
        "files removed while locks or connections are held",
        ((LOCKS, "no_file_is_removed_while_locks_are_held no_connection_is_held_while_files_are_removed"),),
    ),
    82: Fault(
        "a backup restored, a replica promoted",
        (("tests/faults/database/test_restored_backups.py", "a_backup_is_restored deferred_files_are_swept"),),
    ),
}


if __name__ == "__main__":
    files = {path for fault in MATRIX.values() for path, _ in fault.proofs}
    print(*sorted(path for path in files if not path.startswith("tests/faults/")))  # noqa: T201
