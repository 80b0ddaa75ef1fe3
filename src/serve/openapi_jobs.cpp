// Files, fine-tuning jobs and batches: what their requests and answers hold.

#include "serve/openapi_parts.h"

namespace tailor::openapi {
namespace {

Json example(Json schema, Json value) {
  schema["examples"] = Json::array({std::move(value)});
  return schema;
}

Json seconds(const char* text) {
  return integer(text);
}

Json page_of(const char* item) {
  return told({{"object", constant("list")},
               {"data", list(ref(item))},
               {"first_id", or_null(string("null: the page is empty"))},
               {"last_id", or_null(string("for 'after' of the next page"))},
               {"has_more", Json{{"type", "boolean"}}}});
}

Json metadata() {
  Json out = map(said({{"type", "string"}, {"maxLength", 512}}, ""), "at most 16 texts of the client's own");
  out["maxProperties"] = 16;
  return out;
}

Json example_hyperparameters() {
  return {{"n_epochs", 2}, {"batch_size", "auto"}};
}

Json example_used() {
  return {{"n_epochs", 2}, {"batch_size", 8}, {"learning_rate_multiplier", 2.5}};
}

void add_files(Json& schemas) {
  schemas["UploadRequest"] = example(
      object(
          {{"file", said({{"type", "string"}, {"contentMediaType", "application/octet-stream"}}, "with a file name")},
           {"purpose", one_of({"fine-tune", "batch", "user_data", "evals"})}},
          {"file", "purpose"}),
      {{"purpose", "batch"}, {"file", "{\"custom_id\": \"1\", …}\n"}});
  schemas["File"] = example(told({{"id", string("file-…")},
                                  {"object", constant("file")},
                                  {"bytes", integer()},
                                  {"created_at", seconds("Unix seconds")},
                                  {"filename", string("as the client named it")},
                                  {"purpose", string("as it was sent; batch_output and fine-tune-results: made here")},
                                  {"status", one_of({"uploaded", "processed", "error"})},
                                  {"status_details", or_null(string())}}),
                            {{"id", "file-6nCzrU8vzNhbRxcGqAcmPGJm"},
                             {"object", "file"},
                             {"bytes", 20480},
                             {"created_at", 1800000000},
                             {"filename", "chats.jsonl"},
                             {"purpose", "fine-tune"},
                             {"status", "uploaded"},
                             {"status_details", nullptr}});
  schemas["FileList"] = page_of("File");
  schemas["DeletedModel"] =
      told({{"id", string()}, {"object", constant("model")}, {"deleted", Json{{"type", "boolean"}}}});
  schemas["Deleted"] = told({{"id", string()}, {"object", constant("file")}, {"deleted", Json{{"type", "boolean"}}}});
}

void add_job_request(Json& schemas) {
  const auto auto_or = [](Json number) { return any_of({constant("auto"), std::move(number)}); };
  Json multiplier = number("of a rate of 2e-4");
  multiplier["minimum"] = 1e-6;
  multiplier["maximum"] = 1e4;
  const Json hyperparameters = taken({{"n_epochs", auto_or(integer("", 1, 50))},
                                      {"batch_size", auto_or(integer("", 1, 256))},
                                      {"learning_rate_multiplier", auto_or(std::move(multiplier))}},
                                     {});
  const Json method = taken(
      {{"type", constant("supervised")}, {"supervised", taken({{"hyperparameters", hyperparameters}}, {})}}, {"type"});
  Json suffix = string("stands in the new model's name");
  suffix["pattern"] = "^[A-Za-z0-9._-]*$";
  suffix["maxLength"] = 64;
  schemas["FineTuningJobRequest"] =
      example(taken({{"model", string("a base model that answers with text")},
                     {"training_file", string("of purpose fine-tune")},
                     {"validation_file", string("absent: a part of the training file")},
                     {"suffix", std::move(suffix)},
                     {"seed", integer("absent: 1", 0, INT32_MAX)},
                     {"method", method},
                     {"hyperparameters", said(hyperparameters, "as they stood before 'method' came")},
                     {"integrations", list(Json{{"type", "object"}}, "none", 0, 0)},
                     {"metadata", metadata()}},
                    {"model", "training_file"}),
              {{"model", "smollm2-135m-instruct"},
               {"training_file", "file-6nCzrU8vzNhbRxcGqAcmPGJm"},
               {"suffix", "support"},
               {"method", {{"type", "supervised"}, {"supervised", {{"hyperparameters", example_hyperparameters()}}}}}});
}

void add_job_answers(Json& schemas) {
  const Json open{{"type", "object"}};
  const auto or_auto = [](Json number) { return any_of({constant("auto"), std::move(number)}); };
  const Json hyperparameters = said(told({{"n_epochs", or_auto(number())},
                                          {"batch_size", or_auto(integer())},
                                          {"learning_rate_multiplier", or_auto(number())}}),
                                    "auto only until it trains: then what it trains with");
  const Json method =
      told({{"type", constant("supervised")}, {"supervised", told({{"hyperparameters", hyperparameters}})}});
  const Json figures = said(open,
                            "step, train_loss, train_mean_token_accuracy (also train_accuracy), valid_loss, "
                            "valid_mean_token_accuracy (both also with full_: every evaluation is a whole one)");
  const Json error = told({{"code", string("invalid_training_file, storage_error, training_failed, …")},
                           {"message", string("what failed; of a file with its line")},
                           {"param", or_null(string())}});
  schemas["FineTuningJob"] = example(
      told({{"object", constant("fine_tuning.job")},
            {"id", string("ftjob-…")},
            {"model", string("the base model")},
            {"created_at", seconds("Unix seconds")},
            {"finished_at", or_null(seconds(""))},
            {"fine_tuned_model", or_null(string("that is served, once the job has succeeded"))},
            {"organization_id", string()},
            {"result_files", list(string(), "a CSV of the steps")},
            {"status", one_of({"validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"})},
            {"validation_file", or_null(string())},
            {"training_file", string()},
            {"hyperparameters", hyperparameters},
            {"trained_tokens", or_null(integer())},
            {"error", or_null(error)},
            {"seed", integer("that it trains with")},
            {"estimated_finish", or_null(seconds("while it trains"))},
            {"method", method},
            {"metadata", or_null(metadata())},
            {"integrations", or_null(list(open))},
            {"suffix", or_null(string())}},
           {"metadata", "integrations", "suffix"}),
      {{"object", "fine_tuning.job"},
       {"id", "ftjob-c4Uq7MZpHXNuGkKTmLvH3w2a"},
       {"model", "smollm2-135m-instruct"},
       {"created_at", 1800000000},
       {"finished_at", 1800000600},
       {"fine_tuned_model", "ft:smollm2-135m-instruct:tailor:support:mLvH3w2a"},
       {"organization_id", "tailor"},
       {"result_files", {"file-9QkXnGkKTmLvH3w2ac4Uq7MZ"}},
       {"status", "succeeded"},
       {"validation_file", nullptr},
       {"training_file", "file-6nCzrU8vzNhbRxcGqAcmPGJm"},
       {"hyperparameters", example_used()},
       {"trained_tokens", 51200},
       {"error", nullptr},
       {"seed", 1},
       {"estimated_finish", nullptr},
       {"method", {{"type", "supervised"}, {"supervised", {{"hyperparameters", example_used()}}}}}});
  schemas["FineTuningEvent"] = example(
      told({{"object", constant("fine_tuning.job.event")},
            {"id", string("ftevent-…, rising")},
            {"created_at", seconds("Unix seconds")},
            {"level", one_of({"info", "warn", "error"})},
            {"message", string()},
            {"type", one_of({"message", "metrics"})},
            {"data", figures}}),
      {{"object", "fine_tuning.job.event"},
       {"id", "ftevent-000000000012"},
       {"created_at", 1800000100},
       {"level", "info"},
       {"message", "Step 20: training loss=1.2500"},
       {"type", "metrics"},
       {"data", {{"train_loss", 1.25}, {"train_mean_token_accuracy", 0.62}, {"train_accuracy", 0.62}, {"step", 20}}}});
  schemas["FineTuningCheckpoint"] = told({{"object", constant("fine_tuning.job.checkpoint")},
                                          {"id", string("ftckpt_…")},
                                          {"created_at", seconds("Unix seconds")},
                                          {"fine_tuned_model_checkpoint", string("under which it is served")},
                                          {"fine_tuning_job_id", string()},
                                          {"metrics", figures},
                                          {"step_number", integer("after which the weights were these")}});
  schemas["FineTuningJobList"] = page_of("FineTuningJob");
  schemas["FineTuningEventList"] = page_of("FineTuningEvent");
  schemas["FineTuningCheckpointList"] = page_of("FineTuningCheckpoint");
}

void add_batches(Json& schemas) {
  const auto endpoint = [] {
    return one_of({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/classify"}, "of all its requests");
  };
  Json window = string("hours, from 1h to 168h: what is not answered by then is not answered at all");
  window["pattern"] = "^[0-9]{1,3}h$";
  schemas["BatchRequest"] = example(
      taken(
          {{"input_file_id",
            string(
                "of purpose batch: lines of {\"custom_id\", \"method\": \"POST\", \"url\", \"body\"}, 50,000 at most")},
           {"endpoint", endpoint()},
           {"completion_window", window},
           {"metadata", metadata()}},
          {"input_file_id", "endpoint", "completion_window"}),
      {{"input_file_id", "file-6nCzrU8vzNhbRxcGqAcmPGJm"},
       {"endpoint", "/v1/chat/completions"},
       {"completion_window", "24h"}});
  const Json error = told({{"code", string("invalid_json_line, duplicate_custom_id, model_not_found, …")},
                           {"line", or_null(integer("of the input file, from 1"))},
                           {"message", string()},
                           {"param", or_null(string("the field: body.model"))}});
  const Json errors = told({{"object", constant("list")}, {"data", list(error)}});
  const Json usage = told({{"input_tokens", integer()},
                           {"input_tokens_details", told({{"cached_tokens", integer()}})},
                           {"output_tokens", integer()},
                           {"output_tokens_details", told({{"reasoning_tokens", integer()}})},
                           {"total_tokens", integer()}});
  const auto at = [](const char* text = "") { return or_null(seconds(text)); };
  schemas["Batch"] = example(
      told({{"id", string("batch_…")},
            {"object", constant("batch")},
            {"endpoint", endpoint()},
            {"model", or_null(string("that all its requests name; null: several, or not known yet"))},
            {"errors", or_null(errors)},
            {"input_file_id", string()},
            {"completion_window", string()},
            {"status", one_of({"validating", "in_progress", "finalizing", "completed", "failed", "expired",
                               "cancelling", "cancelled"})},
            {"output_file_id", or_null(string("lines of {\"id\", \"custom_id\", \"response\": {\"status_code\", "
                                              "\"request_id\", \"body\"}, \"error\": null}"))},
            {"error_file_id",
             or_null(string("the same of requests that were refused; response null: of those that were not answered"))},
            {"created_at", seconds("Unix seconds")},
            {"expires_at", seconds("the end of the window")},
            {"in_progress_at", at()},
            {"finalizing_at", at()},
            {"completed_at", at()},
            {"failed_at", at()},
            {"expired_at", at()},
            {"cancelling_at", at()},
            {"cancelled_at", at()},
            {"request_counts", told({{"total", integer()},
                                     {"completed", integer("answered with status 200")},
                                     {"failed", integer("answered with another one")}})},
            {"usage", or_null(usage)},
            {"metadata", or_null(metadata())}}),
      {{"id", "batch_mLvH3w2ac4Uq7MZpHXNuGkKT"},
       {"object", "batch"},
       {"endpoint", "/v1/chat/completions"},
       {"model", "smollm2-135m-instruct"},
       {"errors", nullptr},
       {"input_file_id", "file-6nCzrU8vzNhbRxcGqAcmPGJm"},
       {"completion_window", "24h"},
       {"status", "in_progress"},
       {"output_file_id", nullptr},
       {"error_file_id", nullptr},
       {"created_at", 1800000000},
       {"expires_at", 1800086400},
       {"in_progress_at", 1800000001},
       {"finalizing_at", nullptr},
       {"completed_at", nullptr},
       {"failed_at", nullptr},
       {"expired_at", nullptr},
       {"cancelling_at", nullptr},
       {"cancelled_at", nullptr},
       {"request_counts", {{"total", 100}, {"completed", 41}, {"failed", 1}}},
       {"usage", nullptr},
       {"metadata", nullptr}});
  schemas["BatchList"] = page_of("Batch");
}

}  // namespace

void add_job_schemas(Json& schemas) {
  add_files(schemas);
  add_job_request(schemas);
  add_job_answers(schemas);
  add_batches(schemas);
}

}  // namespace tailor::openapi
