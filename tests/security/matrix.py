"""The attacks that the library must withstand, by number, and the tests that cover them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MATRIX", "Attack", "table"]

BUCKET = "tests/stores/s3"
CLIENT = f"{BUCKET}/test_client.py"
COLUMNS = "tests/offload"
CONTENT = "tests/security/test_content.py"
CONTRACT = "aioimageattach/testing/_contract.py"
CROP_BOXES = "tests/thumbnails/test_crop_boxes.py"
DECLARED = "tests/security/test_declared.py"
DIRECTORY = "tests/stores/fs/test_store.py"
DRAWINGS = "tests/imaging/test_svg.py"
FILENAMES = "tests/test_filenames.py"
FILES = f"{COLUMNS}/test_files.py"
FILES_IN_STORES = f"{COLUMNS}/test_files_in_stores.py"
GUARD = "tests/imaging/test_guard.py"
HEADERS = f"{BUCKET}/test_headers.py"
ISOLATION = "tests/imaging/test_isolation.py"
KEYS = "tests/test_key.py"
LISTING = "tests/stores/fs/test_listing.py"
METADATA = "tests/imaging/test_metadata.py"
PARSING = "tests/security/test_parsing.py"
PERMISSIONS = "tests/security/test_permissions.py"
PROGRAM = "tests/cli"
PROBE = "tests/imaging/test_probe.py"
SECRETS = "tests/security/test_secrets.py"
SERVED = "tests/stores/fs/test_static.py"
SIGNED = "tests/security/test_signed.py"
SETS = "tests/entity/test_imageset.py"
SHOWN = "tests/stores/fs/serving/test_names.py"
SIZES = "tests/security/test_thumbnails.py"
SPOOLS = "tests/test_file.py"
THUMBNAIL_SERVER = "tests/thumbnails/test_server.py"
UPLOADS = "tests/security/test_uploads.py"
URLS = f"{BUCKET}/test_urls.py"


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes:
        name: The attack.
        inputs: Some of the tested inputs.
        answer: The response of the library.
        proofs: The tests that cover it, by file; each word is the rest of a function's name.
        reason: The reason why it has no test, if it has none.
    """

    name: str
    inputs: str
    answer: str
    proofs: tuple[tuple[str, str], ...] = ()
    reason: str = ""

    @property
    def tests(self) -> tuple[str, ...]:
        """Return the tests as pytest names them, without their parameters."""
        return tuple(f"{path}::test_{name}" for path, names in self.proofs for name in names.split())


MATRIX: dict[int, Attack] = {
    1: Attack(
        "path traversal",
        "`..`, absolute, encoded once and twice, backslashes, NUL, 5,000 characters, devices of Windows",
        "`InvalidKeyError` before any I/O; the server responds with 404",
        (
            (KEYS, "invalid_fields_of_a_key invalid_names_in_a_store"),
            (CONTRACT, "invalid_names"),
            ("tests/stores/fs/test_paths.py", "invalid_names_in_a_directory"),
            (SHOWN, "other_paths_are_not_served any_path_can_be_parsed"),
        ),
    ),
    2: Attack(
        "symbolic links to the outside",
        "symbolic links to files and directories, loops, a directory replaced by a link during the access, FIFOs, "
        "devices",
        "no link is followed, only regular files are read",
        (
            (DIRECTORY, "symbolic_links_are_not_followed a_directory_replaced_by_a_link_during_a_put"),
            (DIRECTORY, "only_regular_files_are_files"),
            (
                SERVED,
                "symbolic_links_are_not_followed a_directory_that_is_repeatedly_replaced_by_a_link"
                " only_regular_files_are_opened",
            ),
        ),
    ),
    3: Attack(
        "names as patterns",
        "`*`, `?`, `[a]`, `a` beside `ab`, an empty prefix",
        "only the exact name is deleted",
        ((CONTRACT, "only_the_exact_name_is_deleted awkward_names"), (LISTING, "invalid_prefixes")),
    ),
    4: Attack(
        "names that change an S3 request",
        "`..`, `a//b`, `?`, `#`, CR and LF, more than 1,024 bytes",
        "the request is sent exactly as it was signed; names that could leave the bucket are rejected",
        (
            (CLIENT, "awkward_keys keys_that_are_refused"),
            (f"{BUCKET}/test_endpoint.py", "no_key_leaves_the_bucket"),
            (URLS, "invalid_keys a_url_that_would_be_rewritten_is_refused"),
        ),
    ),
    5: Attack(
        "header injection",
        "types and names with CR, LF, NUL, quotes",
        "types are detected from the content; values that would break a header are rejected",
        (
            (HEADERS, "headers_that_would_break_a_request_are_refused"),
            (CLIENT, "header_injection"),
            (CONTENT, "the_type_is_that_of_the_bytes"),
        ),
    ),
    6: Attack(
        "scripts in images",
        "SVG, HTML and PDF with script, images that are also programs, HTML after an image",
        "detected from the content; formats with scripts are off by default, and are downloaded instead of displayed",
        (
            (CONTENT, "the_name_of_a_file_is_ignored data_after_a_picture_is_not_in_thumbnails"),
            (CONTENT, "pixels_of_a_polyglot_are_its_only_content"),
            (PROBE, "files_that_are_no_image_are_unreadable the_error_for_a_type_that_is_not_allowed"),
            (SERVED, "active_content_is_downloaded the_headers_of_a_file"),
        ),
    ),
    7: Attack(
        "attributes that clients must not set",
        "`width`, `original`, `revision`, `sha256`, the owner's key, a false type",
        "values detected by the server are used",
        (
            (CONTENT, "constructor_arguments_do_not_override_the_library no_argument_names_a_file_or_a_store"),
            (CONTENT, "the_type_is_that_of_the_bytes"),
        ),
    ),
    8: Attack(
        "decompression bombs",
        "the table above",
        "rejected because of header or structure",
        (
            (GUARD, "bombs_are_rejected rejecting_takes_little_memory frames_of_animated_png_are_limited"),
            (PROBE, "each_limit_holds"),
            (METADATA, "bombs_are_rejected_without_a_decoder"),
            (
                "tests/imaging/test_containers.py",
                "files_with_too_many_parts_are_rejected a_search_releases_the_interpreter",
            ),
            (ISOLATION, "the_time_limit_holds_for_every_decoder memory_is_limited"),
        ),
    ),
    9: Attack(
        "external references in SVG",
        "files, addresses, XInclude, entities, style sheets, nested data, nested filters",
        "off by default; nothing external is read, and rendered elements are counted",
        (
            (DRAWINGS, "nothing_outside_is_read external_references_are_rejected limits_of_embedded_images"),
            (DRAWINGS, "nested_references_are_counted style_sheets_are_read_once"),
            (DRAWINGS, "filters_are_limited_by_the_pixels_they_work_on"),
            (ISOLATION, "a_worker_is_confined"),
        ),
    ),
    10: Attack(
        "server-side request forgery",
        "loopback, redirects, DNS rebinding",
        "`from_url` checks each address when it is connected; nothing else fetches URLs",
        (
            (
                "tests/test_fetch.py",
                "no_spelling_of_a_local_address_is_allowed each_redirect_is_checked a_name_whose_address_changes"
                " public_addresses",
            ),
        ),
    ),
    11: Attack(
        "signed URLs",
        "each parameter changed, cut, doubled and left out, each digit of the signature; other keys, methods, times",
        "rejected by the server for which they were signed",
        (
            (SIGNED, "a_changed_url_is_refused urls_signed_by_others invalid_lifetimes"),
            (CLIENT, "signed_urls forms"),
            (f"{BUCKET}/test_presigner.py", "numbers_out_of_range the_lifetime_of_a_url"),
            (f"{BUCKET}/test_signer.py", "botocore_signs_the_same"),
        ),
    ),
    12: Attack(
        "thumbnails of extreme sizes or numbers",
        "sides of 0, −1, 10⁹ and NaN, ratios of 10⁻³⁰⁰ and 10⁹, any number of sizes, strips, many concurrent requests",
        "limits on sides and pixels, 100 thumbnails an image, one decoding for concurrent requests, waiting requests "
        "hold no image",
        (
            (SIZES, "a_picture_has_no_more_thumbnails_than_allowed absurd_sizes_are_refused"),
            (SIZES, "extreme_proportions a_tiny_ratio_is_one_pixel"),
            (SIZES, "few_originals_are_in_memory"),
            (SETS, "a_hundred_tasks_make_one_thumbnail"),
            ("tests/imaging/test_render.py", "animations_have_limits thumbnails_have_limits_too"),
        ),
    ),
    13: Attack(
        "leaked secrets",
        "logs, warnings, errors and their causes, the `repr` of objects, output of programs",
        "the whole suite is searched for its secrets, and for signatures",
        (
            (SECRETS, "a_secret_is_seen signatures_are_secret expected_errors_are_examined"),
            (SECRETS, "reconfigured_logging_does_not_disable_the_plugin the_output_of_programs_is_examined"),
            (SECRETS, "objects_are_examined"),
            (SECRETS, "the_suite_is_watched"),
            (ISOLATION, "a_worker_has_no_secrets_in_its_environment"),
            (f"{BUCKET}/test_credentials.py", "nothing_shows_a_secret"),
            (f"{BUCKET}/test_signer.py", "nothing_shows_a_secret"),
            (f"{PROGRAM}/test_database.py", "messages_do_not_repeat_invalid_urls"),
            (f"{PROGRAM}/test_database.py", "a_database_that_does_not_respond"),
            (f"{PROGRAM}/test_stores.py", "invalid_urls profile"),
            (f"{PROGRAM}/test_doctor.py", "a_bucket"),
            (f"{BUCKET}/test_sender.py", "attempts_are_logged_without_secrets"),
        ),
    ),
    14: Attack(
        "decompression bombs in columns",
        "1,000 to 1, truncated, another format",
        "decompression stops at the stored size",
        (
            (
                f"{COLUMNS}/test_codec.py",
                "a_decompression_bomb_takes_little_memory a_large_window_is_refused altered_data_is_refused",
            ),
        ),
    ),
    15: Attack(
        "unsafe deserialization",
        "pickles, JSON nested without end, references to other buckets, a compromised decoder",
        "nothing is unpickled; a reference can only name files of its column; responses are checked",
        (
            (f"{COLUMNS}/test_jsontext.py", "hostile_json names_have_no_special_meaning other_values_are_refused"),
            (f"{COLUMNS}/test_jsontext.py", "the_maximum_nesting"),
            (f"{COLUMNS}/test_reference.py", "foreign_references_are_refused"),
            (ISOLATION, "invalid_responses_of_a_compromised_worker invalid_headers_are_rejected"),
            (ISOLATION, "invalid_messages slow_responses_are_stopped"),
        ),
    ),
    16: Attack(
        "permissions of files",
        "umask 0 and 077, planted links, a directory with the setgid bit, a killed process",
        "unfinished files can be read only by their owner; finished ones have the configured permissions",
        (
            (DIRECTORY, "permissions_do_not_depend_on_the_umask only_the_owner_can_read_an_unfinished_file"),
            (DIRECTORY, "the_group_of_the_root_is_inherited a_killed_process_leaves_no_file"),
            (PERMISSIONS, "only_the_owner_can_read_a_spool"),
        ),
    ),
    17: Attack(
        "endless uploads",
        "endless bodies, very slow bodies, false lengths, 1,000 concurrent uploads",
        "measured while they are read; 128 MiB of memory for all together",
        (
            (UPLOADS, "an_endless_body_is_read_up_to_the_limit slow_bodies_hold_no_thread"),
            (UPLOADS, "all_uploads_together_have_a_memory_limit"),
            (UPLOADS, "a_thousand_concurrent_uploads_take_constant_memory"),
            (SPOOLS, "a_file_beyond_the_limit filling_from_an_endless_file_is_cancelled"),
            (SETS, "bytes_are_counted_while_they_stream a_rejected_file_changes_nothing"),
        ),
    ),
    18: Attack(
        "malformed requests",
        "ranges reversed, by the thousand and out of bounds, other methods, a foreign `Host`",
        "416 or the whole file; URLs use configured hosts",
        (
            ("tests/_http/test_ranges.py", "ranges_beyond_the_file ignored_headers the_maximum_number_of_ranges"),
            (SERVED, "a_range_beyond_the_file files_can_only_be_read conditions"),
            ("tests/stores/fs/test_exposed.py", "allowed_hosts no_request_sees_the_host_of_another"),
        ),
    ),
    19: Attack(
        "private metadata",
        "GPS, previews of the whole image, profiles and XMP of ten megabytes",
        "thumbnails have no metadata; originals lose them with `strip_metadata=True`",
        (
            ("tests/imaging/test_render.py", "metadata_is_left_out"),
            (METADATA, "stripping_keeps_the_pixels the_resolution_of_jfif_stays_without_its_preview"),
            (SETS, "metadata_is_kept_or_stripped"),
            (GUARD, "bombs_are_rejected"),
        ),
    ),
    20: Attack(
        "files of other tenants",
        "names of other classes, guessed names",
        "110 random bits in each name; a row of one class cannot refer to a file of another class",
        (
            (KEYS, "revisions_of_the_same_millisecond_differ"),
            (CONTENT, "constructor_arguments_do_not_override_the_library"),
            (DIRECTORY, "the_name_consists_of_the_revision"),
        ),
    ),
    21: Attack(
        "small files that are expensive to parse",
        "EXIF that points to itself, TIFF directories by the hundred, AVIF tables of 18,000,000 samples, metadata of "
        "12 MB, 3,000 shadows in a drawing",
        "a budget for entries, samples, texts and filters; decoders get no metadata; headers have a time limit",
        (
            (PARSING, "parsing_has_a_budget"),
            (GUARD, "exif_that_points_to_itself decoders_get_no_metadata headers_have_a_time_limit"),
            (GUARD, "structured_files_stay_within_the_budgets rejecting_takes_little_memory"),
            ("tests/imaging/test_tiff.py", "many_pages fields_are_limited"),
            ("tests/imaging/test_bmff.py", "tables_that_claim_many_samples tables_are_limited"),
            (DRAWINGS, "filters_that_take_long_are_refused"),
        ),
    ),
    22: Attack(
        "originals as thumbnails",
        "the same width, the ratio 1, a box of the same size, sizes that are not enlarged, rows of the predecessor",
        "no call that makes or finds thumbnails returns the original",
        (
            ("tests/imaging/test_render.py", "a_thumbnail_of_the_originals_own_size_is_not_the_original"),
            (
                SETS,
                "a_thumbnail_of_the_originals_size_is_not_the_original "
                "rows_of_the_predecessor_have_thumbnails_of_their_own_size",
            ),
        ),
    ),
    23: Attack(
        "URLs of declared thumbnails",
        "forged tags, sizes, formats and crop boxes, names of other classes, `..`, forged and expired signatures, "
        "decompression bombs as originals, 100 clients that read nothing, a crawler that requests every file and focal "
        "point",
        "only declared files are made, each once; no response contains the original or its name; each client holds one "
        "block",
        (
            (DECLARED, "no_response_reveals_the_original no_path_returns_the_original"),
            (DECLARED, "forged_names_make_nothing_else originals_of_other_classes"),
            (DECLARED, "forged_signatures_cause_no_call_of_the_store decompression_bombs_as_originals"),
            (DECLARED, "a_crawler_that_requests_everything slow_clients_hold_one_block_each"),
            (THUMBNAIL_SERVER, "other_names_are_not_found sizes_cannot_be_forged"),
            (
                THUMBNAIL_SERVER,
                "focal_points_cannot_fill_the_disk a_broken_original_is_remembered a_decompression_bomb_is_refused",
            ),
            (CROP_BOXES, "forged_boxes_are_refused boxes_cannot_fill_the_disk a_busy_server_shows_no_other_part"),
            (THUMBNAIL_SERVER, "one_signature_covers_all_files_of_a_picture a_signature_expires"),
        ),
    ),
    24: Attack(
        "attached files",
        "pages and scripts named `photo.png`, `evil.html` or `x.svg`, declared as `image/png`; names with `../../`, "
        "control characters, quotes, a changed text direction, 300 characters; endless bodies; forged paths",
        "names are cleaned; no response has a type that browsers run as a page, a script or a style sheet; all files "
        "except images are downloads; sizes are limited while bytes are read",
        (
            (FILENAMES, "hostile_file_names long_file_names_keep_their_extension any_text_becomes_a_file_name"),
            (FILENAMES, "mime_types served_types_are_inert_in_browsers other_extensions_get_an_inert_one"),
            (FILENAMES, "other_names_are_not_those_of_attached_files"),
            (FILES, "too_large the_column_has_a_limit a_damaged_file"),
            (FILES_IN_STORES, "each_store urls_of_a_bucket urls_of_a_directory pictures_are_displayed"),
            (FILES_IN_STORES, "a_front_end_server_sends_the_file nginx other_paths"),
        ),
    ),
}


def table() -> list[str]:
    """Return the lines of the table that the documentation shows."""
    lines = ["| Attack | Examples | Result | Tests |", "|---|---|---|---:|"]
    for attack in MATRIX.values():
        tests = len(set(attack.tests)) or "–"
        lines.append(f"| {attack.name} | {attack.inputs} | {attack.answer} | {tests} |")
    return lines
