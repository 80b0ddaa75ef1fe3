#include "core/token_file_writer.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/safetensors_pieces.h"
#include "core/token_file_tensors.h"

namespace tailor {
namespace {

bool is_of_labels(const SafeTensor& tensor) {
  return tensor.name == "label_tokens" || tensor.name == "label_offsets";
}

}  // namespace

void end_row(TokenFile& block, std::int32_t label, TokenPart part, std::int64_t row_id) {
  block.offsets.push_back(static_cast<std::int64_t>(block.tokens.size()));
  block.labels.push_back(label);
  block.parts.push_back(part);
  block.row_ids.push_back(row_id);
}

void clear_rows(TokenFile& block) {
  block.offsets.resize(1);
  block.parts.clear();
  for (auto* values : {&block.tokens, &block.labels, &block.token_labels, &block.spans}) values->clear();
  for (auto* values : {&block.loss_mask, &block.types}) values->clear();
  for (auto* values : {&block.targets, &block.soft_targets}) values->clear();
  block.row_ids.clear();
}

Status TokenFileWriter::append(const TokenFile& block) {
  TAILOR_CHECK(block.check(file_));
  std::vector<SafeTensor> tensors = tensors_of(block);
  const bool first = columns_.empty();
  if (first) {
    metadata_ = metadata_of(block);
    for (const SafeTensor& t : tensors) {
      TAILOR_TRY(SpoolFile spool, SpoolFile::create_beside(file_));
      columns_.push_back({t.name, t.type, t.shape, std::move(spool)});
      TAILOR_CHECK(columns_.back().bytes.append(t.bytes));
    }
  } else {
    const bool same = metadata_ == metadata_of(block) &&
                      std::equal(tensors.begin(), tensors.end(), columns_.begin(), columns_.end(),
                                 [](const SafeTensor& t, const Column& c) { return t.name == c.name; });
    if (!same) {
      return Error{ErrorCode::kInternal,
                   fmt::format("{}: the block from row {} on has other tensors than the first", file_.string(), rows_),
                   ""};
    }
    std::vector<std::int64_t> ends(block.offsets.begin() + 1, block.offsets.end());
    for (std::int64_t& end : ends) end += tokens_;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      SafeTensor& t = tensors[i];
      if (is_of_labels(t)) continue;
      if (t.name == "offsets")
        t = safe_tensor<std::int64_t>("offsets", "I64", {static_cast<std::int64_t>(ends.size())}, ends);
      columns_[i].shape[0] += t.shape[0];
      TAILOR_CHECK(columns_[i].bytes.append(t.bytes));
    }
  }
  rows_ += static_cast<std::int64_t>(block.rows());
  tokens_ += block.offsets.back();
  return {};
}

Status TokenFileWriter::finish() {
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  if (columns_.empty()) return Error{ErrorCode::kInternal, file_.string() + ": it has no rows", ""};
  std::vector<StreamedTensor> tensors;
  for (Column& column : columns_)
    tensors.push_back({column.name, column.type, column.shape, [&column] { return column.bytes.next(kPiece); }});
  return write_safetensors_in_pieces(file_, tensors, metadata_);
}

}  // namespace tailor
