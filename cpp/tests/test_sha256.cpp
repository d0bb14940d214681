#include <gtest/gtest.h>

#include "sha256.hpp"

// Examples of FIPS 180-4's companion document (NIST, SHA256.pdf), and the million letters of RFC 6234.
TEST(Sha256, gives_the_digests_that_nist_published) {
  const std::pair<std::string, std::string> published[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {std::string(1000000, 'a'), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
  };
  for (const auto &[text, digest] : published) {
    pd::Sha256 hash;
    hash.update(text.data(), text.size());
    EXPECT_EQ(hash.finish(), digest);
  }
}

TEST(Sha256, does_not_depend_on_how_the_bytes_are_cut) {
  const std::string text(1000, 'x');
  pd::Sha256 whole;
  whole.update(text.data(), text.size());
  const std::string expected = whole.finish();
  for (const std::size_t piece : {1, 7, 55, 56, 63, 64, 65, 128}) {
    pd::Sha256 hash;
    for (std::size_t start = 0; start < text.size(); start += piece) {
      hash.update(text.data() + start, std::min(piece, text.size() - start));
    }
    EXPECT_EQ(hash.finish(), expected) << "pieces of " << piece;
  }
}
