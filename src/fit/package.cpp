#include "fit/package.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>

#include "core/files.h"
#include "core/hash.h"
#include "core/system.h"
#include "fit/candidates.h"
#include "fit/serving.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFormat = "tailor-package";
constexpr const char* kBaseFile = "base.gguf";

Json base_to_json(const BaseModel& base) {
  if (base.id.empty()) return nullptr;
  Json json{{"id", base.id},         {"kind", base.kind},       {"file", base.file},
            {"sha256", base.sha256}, {"licence", base.licence}, {"source", base.source}};
  if (!base.source_sha256.empty()) json["source_sha256"] = base.source_sha256;
  return json;
}

Json target_to_json(const PackageTarget& target) {
  if (target.kind == PackageTarget::Kind::kLabelSet)
    return Json{{"kind", "label-set"}, {"threshold", target.threshold}, {"separator", target.separator}};
  if (target.kind == PackageTarget::Kind::kTags) return Json{{"kind", "tags"}, {"spans", target.spans}};
  if (target.kind == PackageTarget::Kind::kSpan) return Json{{"kind", "span"}, {"no_answer", target.no_answer}};
  return Json{{"kind", "number"}, {"mean", target.mean}, {"deviation", target.deviation}};
}

/// Throws Json::exception where something is missing; nullopt for a kind that this version does not know.
std::optional<PackageTarget> target_of(const Json& json) {
  PackageTarget target;
  if (json.at("kind") == "label-set") {
    target.kind = PackageTarget::Kind::kLabelSet;
    target.threshold = json.at("threshold");
    target.separator = json.at("separator").get<std::string>();
  } else if (json.at("kind") == "number") {
    target.kind = PackageTarget::Kind::kNumber;
    target.mean = json.at("mean");
    target.deviation = json.at("deviation");
  } else if (json.at("kind") == "tags") {
    target.kind = PackageTarget::Kind::kTags;
    target.spans = json.at("spans");
  } else if (json.at("kind") == "span") {
    target.kind = PackageTarget::Kind::kSpan;
    target.no_answer = json.at("no_answer");
  } else {
    return std::nullopt;
  }
  return target;
}

std::string answers_of(const PackageManifest& m) {
  switch (m.target.kind) {
    case PackageTarget::Kind::kLabelSet:
      return fmt::format("those of {} labels that hold, with a probability for each", m.labels.size());
    case PackageTarget::Kind::kNumber:
      return fmt::format("with a number, {}", m.labels.front());
    case PackageTarget::Kind::kTags:
      return fmt::format("with a tag for each word, one of {}", m.labels.size());
    case PackageTarget::Kind::kSpan:
      return "a question with a piece of the text beside it";
    case PackageTarget::Kind::kLabel:
      break;
  }
  return fmt::format("one of {} labels with a probability for each", m.labels.size());
}

std::string readme(const PackageManifest& m) {
  std::ostringstream out;
  out << "# A package made by Tailor\n\n"
      << "Method: " << m.method
      << (m.base.id.empty() ? "" : ", base model " + m.base.id + " (licence " + m.base.licence + ")") << ".\n\n"
      << (m.serving == kServeText ? std::string("It answers with text.\n\n"
                                                "    tailor generate DIRECTORY \"a text\"\n\n")
                                  : fmt::format("It answers {0}.\n\n"
                                                "    tailor predict DIRECTORY{1} \"a text\"\n"
                                                "    tailor predict DIRECTORY --input new.{2} --output scored.{2}\n\n",
                                                answers_of(m), m.serving == kServeSpan ? " \"a question\"" : "",
                                                m.serving == kServeSpan || m.serving == kServeTags ? "jsonl" : "csv"))
      << "Settings: `" << dump_json(m.settings) << "`\n";
  if (!m.scores.empty()) out << "\nScores on the test part: `" << dump_json(m.scores) << "`\n";
  out << "\n`manifest.json` holds versions, hashes and the data it was fitted on. Loading checks them.\n";
  return out.str();
}

/// A path from a manifest must stay inside the package.
bool is_plain_relative(const fs::path& path) {
  if (path.empty() || path.is_absolute()) return false;
  return std::none_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".."; });
}

Error damaged(const fs::path& dir, const std::string& what) {
  return {ErrorCode::kCorruptData, fmt::format("{}: {}", dir.string(), what),
          "copy the package again from where it was made, or run tailor fit again"};
}

Error another_base(const fs::path& dir, const fs::path& file, const BaseModel& base, const std::string& hash) {
  return {ErrorCode::kCorruptData,
          fmt::format("{}: the base model {} is not the one the package was made with: its SHA-256 is {}, expected {}",
                      dir.string(), file.string(), hash, base.sha256),
          fmt::format("put {} back there, or make the package again on the model that is there now", base.id)};
}

}  // namespace

std::vector<std::string> data_hashes(const PackageManifest& manifest) {
  std::vector<std::string> out;
  const auto files = manifest.data.find("files");
  if (files == manifest.data.end() || !files->is_array()) return out;
  for (const Json& file : *files) {
    if (file.is_object() && file.contains("sha256") && file["sha256"].is_string())
      out.push_back(file["sha256"].get<std::string>());
  }
  return out;
}

std::string run_name(const fs::path& run) {
  return (fs::absolute(run) / "").lexically_normal().parent_path().filename().string();
}

fs::path base_model_path(const fs::path& package_dir, const BaseModel& base) {
  const fs::path file = base.file;
  return file.is_absolute() ? file : package_dir / file;
}

Status close_package(const fs::path& dir, PackageManifest manifest, bool include_base_model) {
  if (!manifest.base.id.empty()) {
    const fs::path source = base_model_path(dir, manifest.base);
    if (manifest.base.sha256.empty()) {
      TAILOR_TRY(manifest.base.sha256, sha256_file(source));
    }
    if (include_base_model && source.parent_path() != dir) {
      TAILOR_CHECK(tailor::copy_file(source, dir / kBaseFile));
      manifest.base.file = kBaseFile;
    }
  }
  TAILOR_CHECK(write_file_atomic(dir / "README.md", readme(manifest)));
  Json files = Json::array();
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (entry.is_regular_file()) paths.push_back(entry.path().lexically_relative(dir));
  }
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) {
    if (path == "manifest.json") continue;
    TAILOR_TRY(const std::string hash, sha256_file(dir / path));
    files.push_back(Json{{"path", path.generic_string()}, {"bytes", fs::file_size(dir / path)}, {"sha256", hash}});
  }
  const SystemInfo system = system_info();
  Json json{{"format", kFormat},
            {"version", kPackageVersion},
            {"tailor_version", TAILOR_VERSION},
            {"method", manifest.method},
            {"base_model", base_to_json(manifest.base)},
            {"settings", manifest.settings},
            {"labels", manifest.labels},
            {"text", Json{{"columns", manifest.text_columns}, {"template", manifest.text_template}}},
            {"min_confidence", manifest.min_confidence},
            {"data", manifest.data},
            {"scores", manifest.scores},
            {"made_on", Json{{"cpu", system.cpu_model}, {"instruction_sets", system.instruction_sets}}},
            {"files", files}};
  if (!manifest.trial.empty()) json["trial"] = manifest.trial;
  if (!manifest.serving.empty()) json["serving"] = manifest.serving;
  if (manifest.target.kind != PackageTarget::Kind::kLabel) json["target"] = target_to_json(manifest.target);
  return write_json_atomic(dir / "manifest.json", json);
}

Result<PackageManifest> read_package(const fs::path& dir) {
  std::error_code ignored;
  if (!fs::is_directory(dir, ignored)) {
    return Error{ErrorCode::kNotFound, fmt::format("{} is not a package: there is no such directory", dir.string()),
                 "give the package/ directory that tailor fit wrote"};
  }
  if (!fs::exists(dir / "manifest.json", ignored)) {
    std::string hint = "give the package/ directory that tailor fit wrote";
    if (fs::exists(dir / "package" / "manifest.json", ignored))
      hint = "did you mean " + (dir / "package").string() + "?";
    return Error{ErrorCode::kNotFound, fmt::format("{} is not a package: manifest.json is missing", dir.string()),
                 hint};
  }
  TAILOR_TRY(const Json json, read_json(dir / "manifest.json"));
  PackageManifest m;
  std::map<fs::path, std::string> hashes;  // of the package's files
  try {
    if (json.at("format") != kFormat)
      return damaged(dir, "manifest.json has another format than " + std::string(kFormat));
    const int version = json.at("version");
    if (version > kPackageVersion) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("{}: package version {}, this tailor {} knows up to {}", dir.string(), version, TAILOR_VERSION,
                      kPackageVersion),
          "use the tailor that made it (" + json.value("tailor_version", std::string("unknown")) + ") or a newer one"};
    }
    m.method = json.at("method");
    m.trial = json.value("trial", "");
    m.serving = json.value("serving", "");
    if (json.contains("target")) {
      const auto target = target_of(json.at("target"));
      if (!target) return damaged(dir, "manifest.json names a target of an unknown kind");
      m.target = *target;
    }
    if (const Json& base = json.at("base_model"); !base.is_null()) {
      m.base = {base.at("id"),
                base.at("kind"),
                base.at("file"),
                base.at("sha256"),
                base.at("licence"),
                base.value("source", ""),
                base.value("source_sha256", "")};
    }
    m.settings = json.at("settings");
    m.labels = json.at("labels").get<std::vector<std::string>>();
    m.text_columns = json.at("text").at("columns").get<std::vector<std::string>>();
    m.text_template = json.at("text").at("template");
    m.min_confidence = json.at("min_confidence");
    m.data = json.at("data");
    m.scores = json.at("scores");
    for (const Json& file : json.at("files")) {
      const fs::path path = file.at("path").get<std::string>();
      if (!is_plain_relative(path))
        return damaged(dir, "manifest.json names a file outside the package: " + path.string());
      const std::uint64_t bytes = file.at("bytes");
      if (!fs::is_regular_file(dir / path, ignored)) return damaged(dir, path.string() + " is missing");
      const std::uint64_t seen = fs::file_size(dir / path, ignored);
      if (seen != bytes) return damaged(dir, fmt::format("{} has {} bytes, expected {}", path.string(), seen, bytes));
      TAILOR_TRY(const std::string hash, sha256_file(dir / path));
      if (hash != file.at("sha256"))
        return damaged(dir, fmt::format("{} was changed: its SHA-256 is {}, expected {}", path.string(), hash,
                                        file.at("sha256").get<std::string>()));
      hashes.emplace(dir / path, hash);
    }
  } catch (const Json::exception& error) {
    return damaged(dir, std::string("manifest.json: ") + error.what());
  }
  if (m.labels.empty() && m.serving != kServeText) return damaged(dir, "manifest.json names no labels");
  if (!m.base.id.empty()) {
    const fs::path file = base_model_path(dir, m.base);
    if (!fs::is_regular_file(file, ignored)) return damaged(dir, "the base model " + file.string() + " is missing");
    const auto known = hashes.find(file);
    TAILOR_TRY(const std::string hash, known != hashes.end() ? Result<std::string>(known->second) : sha256_file(file));
    if (hash != m.base.sha256) return another_base(dir, file, m.base, hash);
  }
  return m;
}

Result<LoadedPackage> load_package(const fs::path& dir, const PredictOptions& options) {
  TAILOR_TRY(PackageManifest manifest, read_package(dir));
  return load_package(dir, std::move(manifest), options);
}

Result<LoadedPackage> load_package(const fs::path& dir, PackageManifest manifest, const PredictOptions& options) {
  for (const ServingKind& kind : serving_kinds()) {
    if (kind.name != manifest.serving) continue;
    TAILOR_TRY(auto classifier, kind.load(dir, manifest, options));
    return LoadedPackage{std::move(manifest), std::move(classifier)};
  }
  const Candidate* candidate = manifest.serving.empty() ? find_candidate_method(manifest.method) : nullptr;
  if (candidate == nullptr) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: unknown method \"{}\"", dir.string(), manifest.method),
                 "the package was made by a newer tailor"};
  }
  TAILOR_TRY(auto classifier, candidate->load(dir, manifest, options));
  return LoadedPackage{std::move(manifest), std::move(classifier)};
}

}  // namespace tailor
