#include "npz.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "error.hpp"

namespace {

std::string number(std::uint64_t value, int bytes) {
  std::string all;
  for (; bytes > 0; --bytes, value >>= 8)
    all += static_cast<char>(value & 0xff);
  return all;
}

// An array as NumPy writes it, without its padding.
std::string npy(const std::string &header, const std::string &data, int version = 1) {
  const std::string start = std::string("\x93NUMPY") + static_cast<char>(version) + '\0';
  return start + number(header.size(), version == 1 ? 2 : 4) + header + data;
}

std::string header(const std::string &descr, const std::string &shape, const std::string &fortran = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }  \n";
}

template <class T>
std::string bytes(std::initializer_list<T> values) {
  std::string all(values.size() * sizeof(T), '\0');
  std::memcpy(all.data(), values.begin(), all.size());
  return all;
}

// What differs from a good file.
struct Entry {
  std::string name;
  std::string content;
  std::uint64_t method = 0, flags = 0;
  std::int64_t more = 0;    // bytes that the directory says beyond those there are
  std::uint64_t start = 0;  // where the entry is said to begin, if not where it does
};

std::string zip(const std::vector<Entry> &entries) {
  std::string all, directory;
  for (const Entry &entry : entries) {
    const std::uint64_t start = entry.start != 0 ? entry.start : all.size();
    const std::uint64_t size = entry.content.size() + static_cast<std::uint64_t>(entry.more);
    // NumPy writes no sizes here, but in a field of zip64 of 20 bytes.
    all += "PK\3\4" + std::string(14, '\0') + std::string(8, '\xff') + number(entry.name.size(), 2) + number(20, 2) +
           entry.name + std::string(20, '\1') + entry.content;
    directory += "PK\1\2" + number(0, 4) + number(entry.flags, 2) + number(entry.method, 2) + number(0, 8) +
                 number(size, 4) + number(size, 4) + number(entry.name.size(), 2) + number(0, 12) + number(start, 4) +
                 entry.name;
  }
  return all + directory + "PK\5\6" + number(0, 4) + number(entries.size(), 2) + number(entries.size(), 2) +
         number(directory.size(), 4) + number(all.size(), 4) + number(0, 2);
}

pd::Named<pd::Array> read(const std::vector<Entry> &entries) {
  return *pd::parse_npz(zip(entries), "sample.npz");
}

std::string refusal(const std::string &content) {
  try {
    pd::parse_npz(content, "sample.npz");
    return "";
  } catch (const pd::BundleError &error) {
    return error.what();
  }
}

std::string refusal_of_header(const std::string &text) {
  return refusal(zip({{"a.npy", npy(text, std::string(8, '\0'))}}));
}

template <class T>
std::vector<T> values(const pd::Array &array) {
  std::vector<T> all(array.data.size() / sizeof(T));
  std::memcpy(all.data(), array.data.data(), array.data.size());
  return all;
}

const Entry kGood{"a.npy", npy(header("<f4", "(2,)"), bytes<float>({1, 2}))};

}  // namespace

TEST(Npz, has_its_arrays_read) {
  const auto arrays = read({{"inputs.x.npy", npy(header("<f4", "(2, 3)"), bytes<float>({1, 2, 3, 4, 5, 6}))},
                            {"bound.npy", npy(header("<f8", "()"), bytes<double>({0.5}), 2)},
                            {"ids.npy", npy(header("<i8", "(1,)"), bytes<std::int64_t>({-7}))},
                            {"empty.npy", npy(header("|u1", "(0, 4)"), "")}});
  ASSERT_EQ(arrays.size(), 4u);
  EXPECT_EQ(arrays[0].first, "inputs.x");
  EXPECT_EQ(arrays[0].second.dtype, PD_FLOAT32);
  EXPECT_EQ(arrays[0].second.shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(values<float>(arrays[0].second), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_TRUE(arrays[1].second.shape.empty());
  EXPECT_EQ(values<double>(arrays[1].second), std::vector<double>{0.5});
  EXPECT_EQ(values<std::int64_t>(arrays[2].second), std::vector<std::int64_t>{-7});
  EXPECT_EQ(arrays[3].second.shape, (std::vector<std::int64_t>{0, 4}));
}

TEST(Npz, leaves_out_arrays_of_other_dtypes_and_other_files) {
  const auto arrays = read({{"name.npy", npy(header("<U3", "()"), std::string(12, 'x'))}, {"notes", "text"}, kGood});
  ASSERT_EQ(arrays.size(), 1u);
  EXPECT_EQ(arrays[0].first, "a");
}

TEST(Npz, has_arrays_in_fortrans_order_put_into_that_of_c) {
  const auto arrays =
      read({{"a.npy", npy(header("<i2", "(2, 3)", "True"), bytes<std::int16_t>({1, 4, 2, 5, 3, 6}))}});
  EXPECT_EQ(values<std::int16_t>(arrays[0].second), (std::vector<std::int16_t>{1, 2, 3, 4, 5, 6}));
}

TEST(Npz, is_not_read_where_it_is_compressed) {
  Entry deflated = kGood;
  deflated.method = 8;
  EXPECT_FALSE(pd::parse_npz(zip({kGood, deflated}), "sample.npz"));
}

TEST(Npz, is_refused_when_it_is_another_kind_of_zip_file) {
  for (const auto &[change, said] : std::vector<std::pair<std::function<void(Entry &)>, const char *>>{
           {[](Entry &entry) { entry.method = 12; }, "compressed in another way"},
           {[](Entry &entry) { entry.flags = 1; }, "encrypted"},
           {[](Entry &entry) { entry.more = 0xffffffff - static_cast<std::int64_t>(entry.content.size()); }, "4 GB"},
           {[](Entry &entry) { entry.start = 0xffffffff; }, "4 GB"},
           {[](Entry &entry) { entry.start = 10; }, "a record of a zip file is missing"},
           {[](Entry &entry) { entry.start = 0xfffffff0; }, "beyond its end"},
           {[](Entry &entry) { entry.more = 1; }, "an array of 8 bytes has 9"},
           {[](Entry &entry) { entry.more = 10000; }, "its entries overlap"}}) {
    Entry entry = kGood;
    change(entry);
    EXPECT_NE(refusal(zip({entry})).find(said), std::string::npos) << said << ": " << refusal(zip({entry}));
  }
  EXPECT_NE(refusal(zip({kGood, kGood})).find("it has 'a' twice"), std::string::npos);
}

TEST(Npz, is_refused_when_it_ends_anywhere_or_has_another_byte_too_many) {
  const std::string good = zip({kGood});
  EXPECT_EQ(refusal(good), "");
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_NE(refusal(good.substr(0, size)).find("sample.npz is not an .npz file of NumPy: "), std::string::npos) << size;
  EXPECT_NE(refusal(good + "x"), "");
}

TEST(Npz, whose_entries_share_their_bytes_is_refused) {
  const Entry large{"a.npy", npy(header("|u1", "(1000,)"), std::string(1000, 'x'))};
  std::vector<Entry> entries{large};
  for (int index = 0; index < 100; ++index) {
    Entry again{"b" + std::to_string(index), "", 0, 0, static_cast<std::int64_t>(large.content.size())};
    entries.push_back(again);
  }
  EXPECT_NE(refusal(zip(entries)).find("its entries overlap"), std::string::npos);
}

TEST(Npz, is_refused_when_the_header_of_an_array_cannot_be_read) {
  EXPECT_EQ(refusal_of_header(header("<f4", "(2,)")), "");
  EXPECT_EQ(refusal_of_header("{'shape': (1,2), 'fortran_order': False, 'descr': '<f4'}"), "");
  for (const char *text :
       {"", "{", "{}", "[]", "{'descr': '<f4'}", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}", "{'descr': '<f4', 'fortran_order': False, 'shape': 2}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", "{'descr': [], 'fortran_order': False, 'shape': ()}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2 2)}", "{'descr': '<f4, 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}"}) {
    EXPECT_NE(refusal_of_header(text).find("the header of an array cannot be read"), std::string::npos) << text;
  }
  const auto sized = [](const std::string &shape) { return refusal_of_header(header("<f4", shape)); };
  EXPECT_NE(sized("(3,)").find("an array of 12 bytes has 8"), std::string::npos);
  EXPECT_NE(sized("(4611686018427387904, 4)").find("an array is too large"), std::string::npos);
  std::string many = "(";
  for (int index = 0; index < 65; ++index)
    many += "1, ";
  EXPECT_NE(sized(many + ")").find("cannot be read"), std::string::npos);
}

TEST(Npz, is_refused_with_arrays_of_no_npy_format_or_a_later_one) {
  EXPECT_NE(refusal(zip({{"a.npy", "text that is long enough"}})).find("does not begin as one of NumPy"),
            std::string::npos);
  EXPECT_NE(refusal(zip({{"a.npy", npy(header("<f4", "(2,)"), bytes<float>({1, 2}), 3)}})).find("has version 3"),
            std::string::npos);
  std::string long_header = kGood.content;
  long_header[9] = '\x7f';
  EXPECT_NE(refusal(zip({{"a.npy", long_header}})).find("beyond its end"), std::string::npos);
}

TEST(Npz, that_is_not_there_is_named) {
  try {
    pd::read_npz("/absent.npz");
    FAIL();
  } catch (const pd::BundleError &error) {
    EXPECT_STREQ(error.what(), "/absent.npz cannot be read: No such file or directory.");
  }
}
