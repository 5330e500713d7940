from bench.system.untrusted import read_toml


def test_toml_may_begin_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_bytes(b'\xef\xbb\xbfdescription = "mine"\n')
    assert read_toml(file) == {"description": "mine"}
