"""Attention among the places of frames is each row's own: devices send each other nothing."""

from pathlib import Path

from simulated_devices import outcome_of


def test_devices_attend_to_the_frames_of_their_own_rows():
    outcomes = outcome_of(Path(__file__).with_name("frame_attention_program.py"))
    assert set(outcomes) == {"8", "16", "3"}  # three rows are whole on all devices
    for rows, outcome in outcomes.items():
        assert outcome["error"] < 1e-5, rows
        assert outcome["collectives"] == [], rows
