#include "recipes/predict_tags.h"

#include <algorithm>

#include "core/files.h"
#include "core/json.h"
#include "core/stopwatch.h"
#include "core/system.h"
#include "data/tag_scheme.h"
#include "fit/serving.h"
#include "fit/tag_answer.h"

namespace tailor {
namespace {

Result<std::vector<TaggedRow>> read_input(const PredictRequest& request, const PackageManifest& manifest) {
  std::vector<TaggedRow> rows;
  if (request.input.empty()) {
    for (const std::string& text : request.texts) rows.push_back(untagged_row(text));
    return rows;
  }
  const auto& columns = request.text_columns.empty() ? manifest.text_columns : request.text_columns;
  TAILOR_TRY(TaggedRows read, read_tagged_rows(request.input, {.words_key = columns.empty() ? "" : columns.front(),
                                                               .tags_key = request.label_column,
                                                               .encoding = request.encoding,
                                                               .needs_tags = false}));
  return std::move(read.rows);
}

}  // namespace

bool answers_tags(const PackageManifest& manifest) {
  return manifest.serving == kServeTags;
}

Result<TagSummary> predict_tags(const PredictRequest& request, PackageManifest manifest, const ProgressFn& progress,
                                const CancelToken& cancel) {
  const int threads = request.threads > 0 ? request.threads : system_info().cores;
  TagSummary out;
  TAILOR_TRY(Tagger tagger, Tagger::load(request.package, manifest, {.threads = threads}));
  TAILOR_TRY(out.rows, read_input(request, manifest));
  const Stopwatch watch;
  TAILOR_TRY(out.answers, tagger.tag(out.rows, progress, cancel));
  out.seconds = watch.seconds();
  const TagScheme scheme = TagScheme::of_labels(manifest.labels, manifest.target.spans);
  for (std::size_t r = 0; r < out.rows.size(); ++r) {
    if (out.rows[r].tags.empty()) continue;
    const auto truth = scheme.ids_of(out.rows[r].tags);
    if (!truth) continue;
    ++out.compared;
    out.words += truth->size();
    for (std::size_t w = 0; w < truth->size(); ++w) out.right += (*truth)[w] == out.answers[r].tags[w] ? 1 : 0;
    if (manifest.target.spans) count_spans(*truth, out.answers[r].tags, out.spans);
  }
  out.manifest = std::move(manifest);
  return out;
}

Status write_tag_predictions(const std::filesystem::path& file, const TagSummary& s) {
  std::string lines;
  for (std::size_t r = 0; r < s.rows.size(); ++r) {
    Json line{{"row", r + 1}};
    line.update(tag_answer(s.rows[r], s.answers[r], s.manifest.labels, s.manifest.target.spans));
    if (!s.rows[r].tags.empty()) line["expected"] = s.rows[r].tags;
    lines += dump_json(line) + "\n";
  }
  return write_file_atomic(file, lines);
}

}  // namespace tailor
