#include "core/token_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <string>

#include "core/safetensors.h"
#include "core/token_file_tensors.h"

namespace tailor {
namespace {

constexpr std::string_view kFormat = "tailor-tokens";
constexpr std::string_view kVersion = "1", kSoftVersion = "2";
constexpr const char* kIob2 = "iob2";   // metadata "tags"
constexpr double kSumTolerance = 1e-3;  // of soft targets, which may have been written with six digits

Error corrupt(const std::filesystem::path& file, std::string what) {
  return {ErrorCode::kCorruptData, fmt::format("{}: {}", file.string(), what), "write the token file again"};
}

template <typename T>
void copy_values(const SafeTensor& tensor, std::vector<T>& out) {
  out.resize(tensor.bytes.size() / sizeof(T));
  std::memcpy(out.data(), tensor.bytes.data(), out.size() * sizeof(T));
}

/// Offsets that start at 0, never fall, and end at `total`.
Status check_offsets(const std::filesystem::path& where, std::string_view name,
                     const std::vector<std::int64_t>& offsets, std::size_t total) {
  if (offsets.empty() || offsets.front() != 0) return corrupt(where, fmt::format("{} does not start at 0", name));
  if (!std::is_sorted(offsets.begin(), offsets.end())) return corrupt(where, fmt::format("{} falls", name));
  if (static_cast<std::size_t>(offsets.back()) != total) {
    return corrupt(where, fmt::format("{} ends at {}, expected {}", name, offsets.back(), total));
  }
  return {};
}

/// One row for each row of the file, of probabilities or of zeros.
Status check_soft_targets(const std::filesystem::path& where, const TokenFile& file) {
  const auto labels = static_cast<std::size_t>(file.n_labels);
  if (file.soft_targets.size() != file.rows() * labels) {
    return corrupt(where, fmt::format("soft_targets has {} entries for {} rows of {} labels", file.soft_targets.size(),
                                      file.rows(), labels));
  }
  for (std::size_t i = 0; i < file.rows(); ++i) {
    const std::span<const float> row(file.soft_targets.data() + i * labels, labels);
    const double sum = std::accumulate(row.begin(), row.end(), 0.0);
    const bool proper = std::all_of(row.begin(), row.end(), [](float p) { return p >= 0; });  // false for NaN
    if (!proper || (sum != 0 && !(std::abs(sum - 1) <= kSumTolerance))) {
      return corrupt(where, fmt::format("the soft targets of row {} should be probabilities that sum to 1, or all 0; "
                                        "they sum to {:g}",
                                        i, sum));
    }
  }
  return {};
}

Result<std::int32_t> metadata_number(const SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  std::int32_t value = -1;
  if (found != file.metadata().end() && found->second.size() < 10 &&
      found->second.find_first_not_of("0123456789") == std::string::npos && !found->second.empty()) {
    value = std::stoi(found->second);
  }
  if (value < 0) return corrupt(file.path(), fmt::format("metadata '{}' should be a whole number", key));
  return value;
}

}  // namespace

void TokenFile::add_row(std::span<const std::int32_t> row, std::int32_t label, TokenPart part, std::int64_t row_id,
                        std::span<const std::uint8_t> mask) {
  if (!mask.empty() && loss_mask.empty()) loss_mask.assign(tokens.size(), 1);
  const bool masked = !mask.empty() || !loss_mask.empty();
  tokens.insert(tokens.end(), row.begin(), row.end());
  if (!mask.empty())
    loss_mask.insert(loss_mask.end(), mask.begin(), mask.end());
  else if (masked)
    loss_mask.insert(loss_mask.end(), row.size(), 1);
  offsets.push_back(static_cast<std::int64_t>(tokens.size()));
  labels.push_back(label);
  parts.push_back(part);
  row_ids.push_back(row_id);
}

void TokenFile::add_label(std::span<const std::int32_t> answer) {
  if (label_offsets.empty()) label_offsets.push_back(0);
  label_tokens.insert(label_tokens.end(), answer.begin(), answer.end());
  label_offsets.push_back(static_cast<std::int64_t>(label_tokens.size()));
}

std::span<const float> TokenFile::soft_target(std::size_t i) const {
  if (soft_targets.empty()) return {};
  const std::span<const float> row(soft_targets.data() + i * static_cast<std::size_t>(n_labels),
                                   static_cast<std::size_t>(n_labels));
  const bool none = std::all_of(row.begin(), row.end(), [](float p) { return p == 0; });
  return none ? std::span<const float>() : row;
}

Status TokenFile::check(const std::filesystem::path& where) const {
  const std::size_t n = rows();
  if (offsets.size() != n + 1 || parts.size() != n || row_ids.size() != n) {
    return corrupt(where,
                   fmt::format("offsets, labels, parts and row_ids disagree on the number of rows ({}, {}, {}, {})",
                               offsets.size() - 1, n, parts.size(), row_ids.size()));
  }
  TAILOR_CHECK(check_offsets(where, "offsets", offsets, tokens.size()));
  if (!loss_mask.empty() && loss_mask.size() != tokens.size()) {
    return corrupt(where, fmt::format("loss_mask has {} entries for {} tokens", loss_mask.size(), tokens.size()));
  }
  if (!targets.empty() && (n == 0 || targets.size() % n != 0))
    return corrupt(where, fmt::format("targets has {} values for {} rows", targets.size(), n));
  if (const auto odd = std::find_if_not(targets.begin(), targets.end(), [](float t) { return std::isfinite(t); });
      odd != targets.end()) {
    return corrupt(where, fmt::format("the target of row {} is not a finite number",
                                      row_ids[static_cast<std::size_t>(odd - targets.begin()) / target_width()]));
  }
  if (!token_labels.empty() && token_labels.size() != tokens.size()) {
    return corrupt(where, fmt::format("token_labels has {} entries for {} tokens", token_labels.size(), tokens.size()));
  }
  for (const std::int32_t l : token_labels) {
    if (l != kNotAnswered && (l < -1 || l >= n_labels))
      return corrupt(where, fmt::format("a token has label {}, expected -100, or -1 to {}", l, n_labels - 1));
  }
  if (!spans.empty() && spans.size() != 2 * n)
    return corrupt(where, fmt::format("spans has {} values for {} rows", spans.size(), n));
  for (std::size_t i = 0; 2 * i < spans.size(); ++i) {
    const std::int32_t first = spans[2 * i], last = spans[2 * i + 1];
    const bool unknown = first == -1 && last == -1;
    if (!unknown && (first < 0 || last < first || last >= static_cast<std::int64_t>(row(i).size()))) {
      return corrupt(where,
                     fmt::format("the span of row {} goes from {} to {} in {} tokens", i, first, last, row(i).size()));
    }
  }
  if (iob2 && n_labels % 2 == 0)
    return corrupt(where, fmt::format("tags iob2 are one for outside and two a type, not {}", n_labels));
  if (!types.empty() && types.size() != tokens.size()) {
    return corrupt(where, fmt::format("types has {} entries for {} tokens", types.size(), tokens.size()));
  }
  if (std::any_of(types.begin(), types.end(), [](std::uint8_t t) { return t > 1; }))
    return corrupt(where, "types has a value above 1");
  for (std::size_t i = 0; i < n; ++i) {
    if (offsets[i] == offsets[i + 1]) return corrupt(where, fmt::format("row {} has no tokens", i));
    if (labels[i] < -1 || labels[i] >= n_labels) {
      return corrupt(where, fmt::format("row {} has label {}, expected -1 to {}", i, labels[i], n_labels - 1));
    }
    if (static_cast<int>(parts[i]) > static_cast<int>(TokenPart::kTest)) {
      return corrupt(where, fmt::format("row {} is in part {}, expected 0 (train), 1 (validation) or 2 (test)", i,
                                        static_cast<int>(parts[i])));
    }
  }
  if (!soft_targets.empty()) TAILOR_CHECK(check_soft_targets(where, *this));
  const auto bad_id = [this](std::int32_t id) { return id < 0 || id >= vocab_size; };
  for (const auto* ids : {&tokens, &label_tokens}) {
    const auto found = std::find_if(ids->begin(), ids->end(), bad_id);
    if (found != ids->end())
      return corrupt(where, fmt::format("token id {} is not below vocab_size {}", *found, vocab_size));
  }
  if (!label_offsets.empty()) {
    if (label_offsets.size() != static_cast<std::size_t>(n_labels) + 1) {
      return corrupt(where, fmt::format("label_offsets has {} entries for {} labels", label_offsets.size(), n_labels));
    }
    TAILOR_CHECK(check_offsets(where, "label_offsets", label_offsets, label_tokens.size()));
    for (std::int32_t l = 0; l < n_labels; ++l) {
      if (label(l).empty()) return corrupt(where, fmt::format("label {} has no tokens", l));
    }
  }
  return {};
}

std::vector<SafeTensor> tensors_of(const TokenFile& content) {
  const auto count = [](const auto& v) { return std::vector<std::int64_t>{static_cast<std::int64_t>(v.size())}; };
  const std::span<const std::uint8_t> parts(reinterpret_cast<const std::uint8_t*>(content.parts.data()),
                                            content.parts.size());
  // Widest types first keeps every tensor aligned to its element.
  std::vector<SafeTensor> tensors = {
      safe_tensor<std::int64_t>("offsets", "I64", count(content.offsets), content.offsets),
      safe_tensor<std::int64_t>("row_ids", "I64", count(content.row_ids), content.row_ids),
  };
  if (!content.label_offsets.empty()) {
    tensors.push_back(
        safe_tensor<std::int64_t>("label_offsets", "I64", count(content.label_offsets), content.label_offsets));
  }
  tensors.push_back(safe_tensor<std::int32_t>("tokens", "I32", count(content.tokens), content.tokens));
  tensors.push_back(safe_tensor<std::int32_t>("labels", "I32", count(content.labels), content.labels));
  if (!content.spans.empty()) {
    tensors.push_back(
        safe_tensor<std::int32_t>("spans", "I32", {static_cast<std::int64_t>(content.rows()), 2}, content.spans));
  }
  if (!content.token_labels.empty()) {
    tensors.push_back(
        safe_tensor<std::int32_t>("token_labels", "I32", count(content.token_labels), content.token_labels));
  }
  if (!content.label_offsets.empty()) {
    tensors.push_back(
        safe_tensor<std::int32_t>("label_tokens", "I32", count(content.label_tokens), content.label_tokens));
  }
  if (!content.targets.empty()) {
    tensors.push_back(safe_tensor<float>(
        "targets", "F32",
        {static_cast<std::int64_t>(content.rows()), static_cast<std::int64_t>(content.target_width())},
        content.targets));
  }
  if (!content.soft_targets.empty()) {
    tensors.push_back(safe_tensor<float>(
        "soft_targets", "F32", {static_cast<std::int64_t>(content.rows()), content.n_labels}, content.soft_targets));
  }
  tensors.push_back(safe_tensor<std::uint8_t>("parts", "U8", count(content.parts), parts));
  if (!content.loss_mask.empty()) {
    tensors.push_back(safe_tensor<std::uint8_t>("loss_mask", "U8", count(content.loss_mask), content.loss_mask));
  }
  if (!content.types.empty())
    tensors.push_back(safe_tensor<std::uint8_t>("types", "U8", count(content.types), content.types));
  return tensors;
}

std::map<std::string, std::string> metadata_of(const TokenFile& content) {
  std::map<std::string, std::string> metadata{
      {"format", std::string(kFormat)},
      {"version", std::string(content.soft_targets.empty() ? kVersion : kSoftVersion)},
      {"n_labels", std::to_string(content.n_labels)},
      {"vocab_size", std::to_string(content.vocab_size)}};
  if (!content.token_labels.empty()) metadata["tags"] = content.iob2 ? kIob2 : "plain";
  return metadata;
}

Status write_token_file(const std::filesystem::path& file, const TokenFile& content) {
  TAILOR_CHECK(content.check(file));
  return write_safetensors(file, tensors_of(content), metadata_of(content));
}

Result<TokenFile> read_token_file(const std::filesystem::path& path) {
  TAILOR_TRY(const SafetensorsFile file, SafetensorsFile::open(path));
  const auto meta = [&](const std::string& key) {
    const auto found = file.metadata().find(key);
    return found == file.metadata().end() ? std::string() : found->second;
  };
  const bool soft = meta("version") == kSoftVersion;
  if (meta("format") != kFormat || (!soft && meta("version") != kVersion)) {
    return corrupt(path, fmt::format("expected format '{}' version {} or {}, found '{}' version '{}'", kFormat,
                                     kVersion, kSoftVersion, meta("format"), meta("version")));
  }
  TokenFile content;
  TAILOR_TRY(content.n_labels, metadata_number(file, "n_labels"));
  TAILOR_TRY(content.vocab_size, metadata_number(file, "vocab_size"));
  TAILOR_TRY(const SafeTensor tokens, file.get("tokens", "I32", 1));
  TAILOR_TRY(const SafeTensor offsets, file.get("offsets", "I64", 1));
  TAILOR_TRY(const SafeTensor labels, file.get("labels", "I32", 1));
  TAILOR_TRY(const SafeTensor parts, file.get("parts", "U8", 1));
  TAILOR_TRY(const SafeTensor row_ids, file.get("row_ids", "I64", 1));
  copy_values(tokens, content.tokens);
  copy_values(offsets, content.offsets);
  copy_values(labels, content.labels);
  copy_values(parts, content.parts);
  copy_values(row_ids, content.row_ids);
  if (file.find("loss_mask") != nullptr) {
    TAILOR_TRY(const SafeTensor mask, file.get("loss_mask", "U8", 1));
    copy_values(mask, content.loss_mask);
  }
  if (file.find("targets") != nullptr) {
    TAILOR_TRY(const SafeTensor targets, file.get("targets", "F32", 2));
    copy_values(targets, content.targets);
    if (targets.shape[0] != static_cast<std::int64_t>(content.rows()))
      return corrupt(path, fmt::format("targets has {} rows, labels {}", targets.shape[0], content.rows()));
  }
  if (file.find("token_labels") != nullptr) {
    TAILOR_TRY(const SafeTensor token_labels, file.get("token_labels", "I32", 1));
    copy_values(token_labels, content.token_labels);
    content.iob2 = meta("tags") == kIob2;
  }
  if (file.find("spans") != nullptr) {
    TAILOR_TRY(const SafeTensor spans, file.get("spans", "I32", 2));
    if (spans.shape[0] != static_cast<std::int64_t>(content.rows()) || spans.shape[1] != 2) {
      return corrupt(path, fmt::format("spans has the shape [{}, {}], expected [{}, 2]", spans.shape[0], spans.shape[1],
                                       content.rows()));
    }
    copy_values(spans, content.spans);
  }
  if (file.find("types") != nullptr) {
    TAILOR_TRY(const SafeTensor types, file.get("types", "U8", 1));
    copy_values(types, content.types);
  }
  if (file.find("label_tokens") != nullptr) {
    TAILOR_TRY(const SafeTensor ids, file.get("label_tokens", "I32", 1));
    TAILOR_TRY(const SafeTensor ends, file.get("label_offsets", "I64", 1));
    copy_values(ids, content.label_tokens);
    copy_values(ends, content.label_offsets);
  }
  if (soft) {
    TAILOR_TRY(const SafeTensor targets, file.get("soft_targets", "F32", 2));
    if (targets.shape[0] != static_cast<std::int64_t>(content.rows()) || targets.shape[1] != content.n_labels) {
      return corrupt(path, fmt::format("soft_targets has the shape [{}, {}], expected [{}, {}]", targets.shape[0],
                                       targets.shape[1], content.rows(), content.n_labels));
    }
    copy_values(targets, content.soft_targets);
  }
  if (content.offsets.empty()) return corrupt(path, "offsets is empty");
  TAILOR_CHECK(content.check(path));
  return content;
}

}  // namespace tailor
