#include "collection/records.hpp"

#include "collection/vector_part.hpp"

namespace sage::vdb::detail {
namespace {

constexpr std::uint8_t has_counts = 1;
constexpr std::uint8_t has_metadata = 2;
constexpr std::uint8_t has_texts = 4;

template <class Number>
void put_block(ByteWriter& out, std::span<const Number> numbers) {
    out.raw({reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes()});
}

template <class Number>
std::vector<Number> get_block(StoredReader& in, std::size_t count) {
    in.require(count <= in.left() / sizeof(Number), "it ends too early");
    std::vector<Number> numbers(count);
    if (count != 0) {
        std::memcpy(numbers.data(), in.raw(count * sizeof(Number)).data(), count * sizeof(Number));
    }
    return numbers;
}

}  // namespace

void encode_options(ByteWriter& out, const CollectionOptions& options) {
    out.varint(options.dimension);
    out.text(metric_name(options.metric));
    out.text(index_kind_name(options.index));
    out.text(storage_name(options.storage));
    out.text(options.rerank ? storage_name(*options.rerank) : "");
    out.varint(options.lists);
    out.varint(options.links);
    out.varint(options.build_effort);
    out.varint(options.graph.degree);
    out.varint(options.graph.build_effort);
    out.fixed(options.graph.alpha);
    out.varint(options.graph.code_dimension);
    out.fixed(options.graph.removed_share_max);
    out.fixed(options.text.k1);
    out.fixed(options.text.b);
}

CollectionOptions decode_options(StoredReader& in) {
    constexpr std::size_t name_max = 64;
    constexpr std::uint64_t any32 = ~std::uint32_t{0};
    CollectionOptions options;
    options.dimension = in.varint(any32);
    const std::string metric(in.text(name_max));
    const std::string index(in.text(name_max));
    const std::string storage(in.text(name_max));
    const std::string rerank(in.text(name_max));
    options.lists = static_cast<std::uint32_t>(in.varint(any32));
    options.links = static_cast<std::uint32_t>(in.varint(any32));
    options.build_effort = static_cast<std::uint32_t>(in.varint(any32));
    options.graph.degree = static_cast<std::uint32_t>(in.varint(any32));
    options.graph.build_effort = static_cast<std::uint32_t>(in.varint(any32));
    options.graph.alpha = in.fixed<float>();
    options.graph.code_dimension = static_cast<std::uint32_t>(in.varint(any32));
    options.graph.removed_share_max = in.fixed<float>();
    options.text.k1 = in.fixed<double>();
    options.text.b = in.fixed<double>();
    try {
        options.metric = metric_from_name(metric);
        options.index = index_kind_from_name(index);
        options.storage = storage_from_name(storage);
        options.rerank = rerank.empty() ? std::nullopt : std::optional(storage_from_name(rerank));
        validate_options(options);
    } catch (const InvalidArgument& error) {
        in.fail(std::string("options that no collection can have: ") + error.what());
    }
    return options;
}

void validate_options(const CollectionOptions& options) {
    if (options.dimension < 1 || options.dimension > Collection::dimension_max) {
        throw InvalidArgument("dimension must be between 1 and " + std::to_string(Collection::dimension_max) + ", got " +
                              std::to_string(options.dimension));
    }
    // These check the rest.
    static_cast<void>(Bm25Index(options.text));
    static_cast<void>(make_main(options));
}

void encode_value(ByteWriter& out, const Value& value) {
    const FieldType type = type_of(value);
    out.u8(static_cast<std::uint8_t>(type));
    switch (type) {
        case FieldType::int64: out.fixed(std::get<std::int64_t>(value)); break;
        case FieldType::float64: out.fixed(std::get<double>(value)); break;
        case FieldType::boolean: out.u8(std::get<bool>(value) ? 1 : 0); break;
        case FieldType::string: out.text(std::get<std::string>(value)); break;
        case FieldType::time: out.fixed(std::get<Time>(value).microseconds); break;
        case FieldType::strings:
            out.varint(std::get<Strings>(value).size());
            for (const std::string& item : std::get<Strings>(value)) {
                out.text(item);
            }
            break;
    }
}

Value decode_value(StoredReader& in) {
    switch (static_cast<FieldType>(in.u8())) {
        case FieldType::int64: return in.fixed<std::int64_t>();
        case FieldType::float64: return in.fixed<double>();
        case FieldType::boolean: return in.u8() != 0;
        case FieldType::string: return std::string(in.text(Metadata::string_bytes_max));
        case FieldType::time: return Time{in.fixed<std::int64_t>()};
        case FieldType::strings: {
            Strings items(in.count(Metadata::list_items_max));
            for (std::string& item : items) {
                item = std::string(in.text(Metadata::string_bytes_max));
            }
            return items;
        }
    }
    in.fail("an unknown type of value");
}

void encode_ids(ByteWriter& out, const IdSpan& ids) {
    out.u8(static_cast<std::uint8_t>(std::holds_alternative<std::span<const std::string>>(ids) ? IdKind::text
                                                                                              : IdKind::integer));
    out.varint(count_of(ids));
    if (const auto* numbers = std::get_if<std::span<const std::int64_t>>(&ids)) {
        put_block(out, *numbers);
        return;
    }
    for (const std::string& id : std::get<std::span<const std::string>>(ids)) {
        out.text(id);
    }
}

IdList decode_ids(StoredReader& in) {
    const auto kind = static_cast<IdKind>(in.u8());
    in.require(kind == IdKind::integer || kind == IdKind::text, "an unknown kind of ids");
    const std::size_t count = in.count(slot_max, kind == IdKind::integer ? sizeof(std::int64_t) : 2);
    if (kind == IdKind::integer) {
        return get_block<std::int64_t>(in, count);
    }
    std::vector<std::string> ids(count);
    for (std::string& id : ids) {
        id = std::string(in.text(Collection::id_bytes_max));
        in.require(!id.empty(), "an empty id");
    }
    return ids;
}

IdSpan span_of(const IdList& ids) {
    if (const auto* numbers = std::get_if<std::vector<std::int64_t>>(&ids)) {
        return std::span<const std::int64_t>(*numbers);
    }
    return std::span<const std::string>(std::get<std::vector<std::string>>(ids));
}

Documents OwnedDocuments::view() const {
    return {.ids = span_of(ids),
            .vectors = vectors,
            .vector_counts = vector_counts,
            .metadata = metadata,
            .texts = texts};
}

std::vector<std::byte> encode_documents(Operation operation, std::uint64_t collection, const Documents& documents,
                                        std::vector<std::byte> room) {
    room.reserve(64 + count_of(documents.ids) * 8 + documents.vectors.size_bytes());
    ByteWriter out(std::move(room));
    out.u8(static_cast<std::uint8_t>(operation));
    out.varint(collection);
    encode_ids(out, documents.ids);
    out.u8(static_cast<std::uint8_t>((documents.vector_counts.empty() ? 0 : has_counts) |
                                     (documents.metadata.empty() ? 0 : has_metadata) |
                                     (documents.texts.empty() ? 0 : has_texts)));
    for (const std::uint32_t count : documents.vector_counts) {
        out.varint(count);
    }
    out.varint(documents.vectors.size());
    put_block(out, documents.vectors);
    for (const Record& record : documents.metadata) {
        out.varint(record.size());
        for (const auto& [name, value] : record) {
            out.text(name);
            encode_value(out, value);
        }
    }
    for (const auto& text : documents.texts) {
        out.u8(text ? 1 : 0);
        if (text) {
            out.text(*text);
        }
    }
    return out.take();
}

OwnedDocuments decode_documents(StoredReader& in) {
    OwnedDocuments documents;
    documents.ids = decode_ids(in);
    const std::size_t count = count_of(documents.ids);
    const std::uint8_t parts = in.u8();
    in.require((parts & ~(has_counts | has_metadata | has_texts)) == 0, "unknown parts of documents");
    if ((parts & has_counts) != 0) {
        in.require(count <= in.left(), "it ends too early");
        documents.vector_counts.resize(count);
        for (std::uint32_t& rows : documents.vector_counts) {
            rows = static_cast<std::uint32_t>(in.varint(Collection::vectors_per_document_max));
        }
    }
    documents.vectors = get_block<float>(in, in.count(~std::size_t{0}, sizeof(float)));
    if ((parts & has_metadata) != 0) {
        in.require(count <= in.left(), "it ends too early");
        documents.metadata.resize(count);
        for (Record& record : documents.metadata) {
            record.resize(in.count(Metadata::fields_max, 2));
            for (auto& [name, value] : record) {
                name = std::string(in.text(Metadata::field_name_bytes_max));
                value = decode_value(in);
            }
        }
    }
    if ((parts & has_texts) != 0) {
        in.require(count <= in.left(), "it ends too early");
        documents.texts.resize(count);
        for (auto& text : documents.texts) {
            if (in.u8() != 0) {
                text = std::string(in.text(Collection::text_bytes_max));
            }
        }
    }
    in.finish();
    return documents;
}

std::vector<std::byte> encode_removal(std::uint64_t collection, const IdSpan& ids) {
    ByteWriter out;
    out.u8(static_cast<std::uint8_t>(Operation::remove));
    out.varint(collection);
    encode_ids(out, ids);
    return out.take();
}

}  // namespace sage::vdb::detail
