#include "core/token_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "core/files.h"
#include "core/safetensors.h"
#include "core/token_file_writer.h"

namespace tailor {
namespace {

TokenFile example() {
  TokenFile file;
  file.n_labels = 2;
  file.vocab_size = 50;
  file.add_row(std::vector<std::int32_t>{1, 2, 3}, 0, TokenPart::kTrain, 7);
  file.add_row(std::vector<std::int32_t>{4}, -1, TokenPart::kValidation, 9, std::vector<std::uint8_t>{0});
  file.add_row(std::vector<std::int32_t>{5, 49}, 1, TokenPart::kTest, 11);
  file.add_label(std::vector<std::int32_t>{8, 9});
  file.add_label(std::vector<std::int32_t>{10});
  return file;
}

TEST(TokenFile, ReadsBackWhatWasWritten) {
  const TemporaryDirectory dir;
  const auto path = dir.path() / "tokens.safetensors";
  const TokenFile file = example();
  ASSERT_TRUE(write_token_file(path, file));
  const auto read = read_token_file(path);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->tokens, file.tokens);
  EXPECT_EQ(read->offsets, file.offsets);
  EXPECT_EQ(read->labels, file.labels);
  EXPECT_EQ(read->parts, file.parts);
  EXPECT_EQ(read->row_ids, file.row_ids);
  EXPECT_EQ(read->loss_mask, (std::vector<std::uint8_t>{1, 1, 1, 0, 1, 1}));
  EXPECT_EQ(read->label_tokens, file.label_tokens);
  EXPECT_EQ(read->label_offsets, file.label_offsets);
  EXPECT_EQ(read->n_labels, 2);
  EXPECT_EQ(read->row(2)[1], 49);
  EXPECT_EQ(read->label(1)[0], 10);
}

TEST(TokenFile, KeepsLabelsOfTokensAndSpans) {
  const TemporaryDirectory dir;
  const auto path = dir.path() / "tokens.safetensors";
  TokenFile file = example();
  file.n_labels = 3;
  file.label_tokens.clear();
  file.label_offsets.clear();
  file.token_labels = {kNotAnswered, 1, 2, -1, 0, kNotAnswered};
  file.iob2 = true;
  file.spans = {1, 2, -1, -1, 0, 0};
  ASSERT_TRUE(write_token_file(path, file));
  const TokenFile read = read_token_file(path).value();
  EXPECT_EQ(read.token_labels, file.token_labels);
  EXPECT_EQ(read.spans, file.spans);
  EXPECT_TRUE(read.iob2);
  EXPECT_EQ(read.token_labels_of(2)[0], 0);
  const auto refused = [](TokenFile bad, const std::string& part) {
    const Status status = bad.check("x");
    ASSERT_FALSE(status.has_value()) << part;
    EXPECT_NE(status.error().message.find(part), std::string::npos) << status.error().message;
  };
  TokenFile bad = file;
  bad.token_labels[1] = 3;
  refused(bad, "a token has label 3");
  bad = file;
  bad.token_labels.pop_back();
  refused(bad, "token_labels has 5 entries for 6 tokens");
  bad = file;
  bad.n_labels = 4;
  refused(bad, "one for outside and two a type");
  bad = file;
  bad.spans[5] = 2;
  refused(bad, "the span of row 2 goes from 0 to 2 in 2 tokens");
  bad = file;
  bad.spans[0] = -1;
  refused(bad, "the span of row 0");
  bad = file;
  bad.spans.pop_back();
  refused(bad, "spans has 5 values for 3 rows");
}

TEST(TokenFile, RefusesIdsAndLabelsOutOfRange) {
  TokenFile file = example();
  file.tokens[0] = 50;
  EXPECT_NE(file.check("x").error().message.find("token id 50"), std::string::npos);
  file = example();
  file.labels[2] = 2;
  EXPECT_NE(file.check("x").error().message.find("label 2"), std::string::npos);
  file = example();
  file.offsets[1] = 4;
  EXPECT_FALSE(file.check("x"));  // row 1 is empty now
  file = example();
  file.offsets[1] = 5;
  EXPECT_NE(file.check("x").error().message.find("falls"), std::string::npos);
}

TEST(TokenFile, SoftTargetsAreVersionTwo) {
  const TemporaryDirectory dir;
  const auto path = dir.path() / "tokens.safetensors";
  TokenFile file = example();
  ASSERT_TRUE(write_token_file(path, file));
  EXPECT_EQ(SafetensorsFile::open(path).value().metadata().at("version"), "1");
  EXPECT_TRUE(read_token_file(path).value().soft_target(0).empty());
  file.soft_targets = {0.25f, 0.75f, 0, 0, 1, 0};
  ASSERT_TRUE(write_token_file(path, file));
  EXPECT_EQ(SafetensorsFile::open(path).value().metadata().at("version"), "2");
  const TokenFile read = read_token_file(path).value();
  EXPECT_EQ(read.soft_targets, file.soft_targets);
  EXPECT_EQ(read.soft_target(0)[1], 0.75f);
  EXPECT_TRUE(read.soft_target(1).empty());  // no teacher's answer
  EXPECT_EQ(read.soft_target(2)[0], 1.0f);
}

TEST(TokenFile, RefusesSoftTargetsThatAreNoProbabilities) {
  const auto message = [](std::vector<float> targets) {
    TokenFile file = example();
    file.soft_targets = std::move(targets);
    const Status status = file.check("x");
    return status ? std::string() : status.error().message;
  };
  EXPECT_EQ(message({0.25f, 0.75f, 0, 0, 1, 0}), "");
  EXPECT_NE(message({0.25f, 0.75f, 0, 0}).find("4 entries for 3 rows of 2 labels"), std::string::npos);
  EXPECT_NE(message({0.25f, 0.75f, 0, 0.5f, 1, 0}).find("row 1"), std::string::npos);
  EXPECT_NE(message({0.25f, 0.75f, 0, 0, 1.5f, -0.5f}).find("row 2"), std::string::npos);
  EXPECT_NE(message({NAN, 0.75f, 0, 0, 1, 0}).find("row 0"), std::string::npos);
}

TEST(TokenFile, CutShortAtEveryByteIsAnErrorAndNeverACrash) {
  const TemporaryDirectory dir;
  const auto path = dir.path() / "tokens.safetensors";
  TokenFile file = example();
  file.soft_targets = {0.25f, 0.75f, 0, 0, 1, 0};
  ASSERT_TRUE(write_token_file(path, file));
  const std::string bytes = read_file(path).value();
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(n));
    EXPECT_FALSE(read_token_file(path)) << n;
  }
}

TEST(Safetensors, HostileHeadersAreRefused) {
  const TemporaryDirectory dir;
  const auto path = dir.path() / "x.safetensors";
  const auto write = [&](std::string_view header) {
    const std::uint64_t n = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &n, 8);
    bytes += header;
    bytes += std::string(16, 'x');
    ASSERT_TRUE(write_file_atomic(path, bytes));
  };
  for (const std::string_view header : {
           R"([])",
           R"({"a":1})",
           R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,32]}})",                      // outside
           R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[8,0]}})",                       // backwards
           R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}})",                      // does not fit the shape
           R"({"a":{"dtype":"F99","shape":[4],"data_offsets":[0,16]}})",                      // unknown type
           R"({"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}})",                     //
           R"({"a":{"dtype":"F32","shape":[4611686018427387905,4],"data_offsets":[0,16]}})",  // overflow
           R"({"__metadata__":{"x":1}})",
       }) {
    write(header);
    EXPECT_FALSE(SafetensorsFile::open(path)) << header;
  }
  write(R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})");
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->tensors().at(0).elements(), 4);
  EXPECT_FALSE(file->get("a", "F32", 1));
  EXPECT_FALSE(file->get("b", "F32", 2));
}

/// The rows of `file` from `begin` to `end`, with the labels' answers.
TokenFile block_of(const TokenFile& file, std::size_t begin, std::size_t end) {
  TokenFile block = file;
  clear_rows(block);
  for (std::size_t i = begin; i < end; ++i) {
    const auto row = file.row(i);
    block.tokens.insert(block.tokens.end(), row.begin(), row.end());
    const auto mask = file.mask(i);
    block.loss_mask.insert(block.loss_mask.end(), mask.begin(), mask.end());
    const auto types = file.types_of(i);
    block.types.insert(block.types.end(), types.begin(), types.end());
    const auto soft = file.soft_targets.begin() + static_cast<std::ptrdiff_t>(i) * file.n_labels;
    if (!file.soft_targets.empty()) block.soft_targets.insert(block.soft_targets.end(), soft, soft + file.n_labels);
    end_row(block, file.labels[i], file.parts[i], file.row_ids[i]);
  }
  return block;
}

TEST(TokenFileWriter, WritesTheBytesOfTheWholeFile) {
  const TemporaryDirectory dir;
  TokenFile file = example();
  file.types = {0, 0, 1, 0, 0, 1};
  file.soft_targets = {0.5f, 0.5f, 0, 0, 1, 0};
  write_token_file(dir.path() / "whole", file).value();
  const std::string whole = read_file(dir.path() / "whole").value();
  for (const std::vector<std::size_t>& ends : {std::vector<std::size_t>{3}, {1, 3}, {0, 2, 2, 3}, {1, 2, 3}}) {
    TokenFileWriter writer(dir.path() / "blocks");
    std::size_t begin = 0;
    for (const std::size_t end : ends) {
      const TokenFile block = block_of(file, begin, end);
      if (block.rows() == 0) continue;  // has no optional tensors
      writer.append(block).value();
      begin = end;
    }
    EXPECT_EQ(writer.rows(), 3);
    writer.finish().value();
    EXPECT_EQ(read_file(dir.path() / "blocks").value(), whole) << ends.size();
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 2) << "something stayed behind";
}

TEST(TokenFileWriter, ManyRowsKeepTheirPlaces) {
  const TemporaryDirectory dir;
  TokenFile block;
  block.n_labels = 1;
  block.vocab_size = 1000;
  TokenFileWriter writer(dir.path() / "blocks");
  for (int b = 0; b < 40; ++b) {
    clear_rows(block);
    for (int r = 0; r < 1000; ++r) {
      for (int t = 0; t <= r % 7; ++t) block.tokens.push_back((b + r + t) % 1000);
      end_row(block, r % 2 - 1, TokenPart::kTrain, b * 1000 + r);
    }
    writer.append(block).value();
  }
  writer.finish().value();
  const TokenFile read = read_token_file(dir.path() / "blocks").value();
  ASSERT_EQ(read.rows(), 40000u);
  for (int i = 0; i < 40000; ++i) {
    const auto row = read.row(static_cast<std::size_t>(i));
    ASSERT_EQ(row.size(), static_cast<std::size_t>(i % 1000 % 7 + 1)) << i;
    ASSERT_EQ(row[0], (i / 1000 + i % 1000) % 1000) << i;
    ASSERT_EQ(read.row_ids[static_cast<std::size_t>(i)], i);
  }
}

TEST(TokenFileWriter, RefusesWhatDoesNotFit) {
  const TemporaryDirectory dir;
  const TokenFile file = example();
  TokenFileWriter writer(dir.path() / "t");
  const auto nothing = writer.finish();
  ASSERT_FALSE(nothing);
  EXPECT_NE(nothing.error().message.find("no rows"), std::string::npos);
  writer.append(file).value();
  TokenFile other = file;
  other.types.assign(other.tokens.size(), 1);
  const auto more = writer.append(other);
  ASSERT_FALSE(more);
  EXPECT_NE(more.error().message.find("from row 3 on"), std::string::npos) << more.error().message;
  TokenFile bad = file;
  bad.tokens[0] = 50;
  EXPECT_FALSE(writer.append(bad));
  EXPECT_FALSE(std::filesystem::exists(dir.path() / "t"));
  TokenFileWriter nowhere("/nowhere/t");
  const auto absent = nowhere.append(file);
  ASSERT_FALSE(absent);
  EXPECT_NE(absent.error().message.find("/nowhere/t"), std::string::npos) << absent.error().message;
}

}  // namespace
}  // namespace tailor
