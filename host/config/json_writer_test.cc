#include "host/config/json_writer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace vmmhost::config {
namespace {

TEST(JsonWriter, compact_hasNoBlanks) {
  JsonWriter json(false);
  json.beginObject()
      .member("a", 1)
      .key("b")
      .beginArray()
      .text("x")
      .boolean(false)
      .null()
      .endArray()
      .key("c")
      .beginObject()
      .endObject()
      .endObject();
  EXPECT_EQ(json.str(), R"({"a":1,"b":["x",false,null],"c":{}})");
}

TEST(JsonWriter, pretty_nests) {
  JsonWriter json;
  json.beginObject()
      .key("list")
      .beginArray()
      .number(std::int64_t{-1})
      .beginObject()
      .member("k", true)
      .endObject()
      .endArray()
      .key("empty")
      .beginArray()
      .endArray()
      .endObject();
  EXPECT_EQ(json.str(), "{\n  \"list\": [\n    -1,\n    {\n      \"k\": true\n    }\n  ],\n  \"empty\": []\n}");
}

TEST(JsonWriter, raw_isIndentedToFit) {
  JsonWriter json;
  json.beginObject().key("inner").raw("{\n  \"a\": 1\n}").member("b", 2).endObject();
  EXPECT_EQ(json.str(), "{\n  \"inner\": {\n    \"a\": 1\n  },\n  \"b\": 2\n}");
}

TEST(JsonWriter, strings_areAlwaysValidJson) {
  std::string out;
  appendJsonString(out, std::string_view("q\" b\\ \n\x01\x7f\x00 \xc3\xa9 \xff \xed\xa0\x80", 19));
  EXPECT_EQ(out,
            "\"q\\\" b\\\\ \\n\\u0001\\u007f\\u0000 \xc3\xa9 \xef\xbf\xbd "
            "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

TEST(JsonWriter, numbers_keepAllDigits) {
  JsonWriter json(false);
  json.beginArray()
      .number(std::numeric_limits<std::uint64_t>::max())
      .number(std::numeric_limits<std::int64_t>::min())
      .number(0.1)
      .number(std::numeric_limits<double>::infinity())
      .number(std::numeric_limits<double>::quiet_NaN())
      .endArray();
  EXPECT_EQ(json.str(), "[18446744073709551615,-9223372036854775808,0.1,null,null]");
}

}  // namespace
}  // namespace vmmhost::config
