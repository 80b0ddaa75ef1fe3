#pragma once
/// A request as OpenTelemetry spans, in the JSON form of OTLP: https://opentelemetry.io/docs/specs/otlp/
///
/// Attributes follow the semantic conventions of generative AI (gen_ai.*) and HTTP. No content: of what a
/// client wrote, its settings (stop texts among them) and the name by which it called the server.

#include <string>
#include <vector>

#include "core/json.h"
#include "serve/request_record.h"

namespace tailor {

/// The request's span, and for text its children queue, prefill and decode.
std::vector<Json> spans_of(const RequestRecord& record);
/// The body of POST /v1/traces.
Json export_request(std::vector<Json> spans, const std::string& service_name);

}  // namespace tailor
