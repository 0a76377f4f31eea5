"""The tests of faults with images, repeated with offloaded columns."""

from __future__ import annotations

from tests.faults.test_cancellation import (  # noqa: F401 - each is collected here anew, with the rig of this folder
    test_a_sibling_fails,
    test_a_transaction_that_could_not_even_end,
    test_cancelled_again_while_it_cleans_up,
    test_cancelled_while_many_are_uploaded,
    test_closing_in_a_finally,
    test_savepoints,
)
from tests.faults.test_endings import (  # noqa: F401
    test_a_rollback_in_a_transaction_of_its_connection,
    test_a_savepoint_left_open_at_the_commit,
    test_a_session_bound_by_class_to_a_connection,
    test_a_session_in_a_transaction_of_its_connection,
    test_a_violated_constraint_in_a_savepoint,
    test_a_web_frameworks_dependency,
    test_autocommit,
    test_each_session_keeps_its_own,
    test_every_way_to_give_up,
    test_forgotten,
    test_left_by_the_block_alone,
    test_replaced_by_one_of_the_same_size,
    test_savepoints_released,
    test_savepoints_released_and_all_rolled_back,
    test_the_connection_is_committed_under_the_session,
)
from tests.faults.test_errors import (  # noqa: F401
    test_a_deadline_around_a_put_that_hangs,
    test_a_deadlock_and_the_retry,
    test_a_delete_that_hangs_has_a_limit,
    test_a_file_that_is_gone_already,
    test_a_hook_of_the_application_raises,
    test_a_plain_session_deletes,
    test_a_plain_session_does_not_upload,
    test_a_put_fails,
    test_a_put_that_cannot_be_stopped,
    test_a_serialization_failure_and_the_retry,
    test_a_session_goes_on_after_a_hook_refused_once,
    test_a_store_that_cancels_itself_does_not_cancel_us,
    test_a_violated_constraint,
    test_an_error_in_the_handler,
    test_deleting_needs_a_store,
    test_the_backend_is_killed_before_commit,
    test_whichever_of_many_puts_fails,
)
from tests.faults.test_row_lives import (  # noqa: F401
    test_bulk_updates_are_nobodys_files,
    test_deletes_behind_our_back_leave_orphans_only,
)
