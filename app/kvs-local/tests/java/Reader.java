import com.amazonaws.auth.AWSCredentialsProvider;
import com.amazonaws.auth.AWSStaticCredentialsProvider;
import com.amazonaws.auth.BasicAWSCredentials;
import com.amazonaws.client.builder.AwsClientBuilder.EndpointConfiguration;
import com.amazonaws.kinesisvideo.parser.ebml.InputStreamParserByteSource;
import com.amazonaws.kinesisvideo.parser.ebml.MkvTypeInfos;
import com.amazonaws.kinesisvideo.parser.mkv.MkvDataElement;
import com.amazonaws.kinesisvideo.parser.mkv.MkvElement;
import com.amazonaws.kinesisvideo.parser.mkv.MkvElementVisitException;
import com.amazonaws.kinesisvideo.parser.mkv.StreamingMkvReader;
import com.amazonaws.kinesisvideo.parser.utilities.FragmentMetadata;
import com.amazonaws.kinesisvideo.parser.utilities.FragmentMetadataVisitor;
import com.amazonaws.services.kinesisvideo.*;
import com.amazonaws.services.kinesisvideo.model.*;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.*;
import java.util.stream.Collectors;

/** Reads a stream with AWS's parser library, and plays it by HLS: ENDPOINT STREAM ACCESS_KEY SECRET_KEY. */
public class Reader {
    public static void main(String[] arguments) throws Exception {
        String stream = arguments[1];
        EndpointConfiguration endpoint = new EndpointConfiguration(arguments[0], "us-west-2");
        AWSCredentialsProvider credentials =
            new AWSStaticCredentialsProvider(new BasicAWSCredentials(arguments[2], arguments[3]));
        AmazonKinesisVideoMedia media = AmazonKinesisVideoMediaClientBuilder.standard()
            .withEndpointConfiguration(endpoint).withCredentials(credentials).build();
        read("GetMedia", media.getMedia(new GetMediaRequest().withStreamName(stream)
            .withStartSelector(new StartSelector().withStartSelectorType(StartSelectorType.EARLIEST))).getPayload());

        AmazonKinesisVideoArchivedMedia archive = AmazonKinesisVideoArchivedMediaClientBuilder.standard()
            .withEndpointConfiguration(endpoint).withCredentials(credentials).build();
        List<String> numbers = archive.listFragments(new ListFragmentsRequest().withStreamName(stream).withMaxResults(1000L))
            .getFragments().stream().map(Fragment::getFragmentNumber).sorted().collect(Collectors.toList());
        read("GetMediaForFragmentList", archive.getMediaForFragmentList(
            new GetMediaForFragmentListRequest().withStreamName(stream).withFragments(numbers)).getPayload());

        Date now = new Date();
        URI master = URI.create(archive.getHLSStreamingSessionURL(new GetHLSStreamingSessionURLRequest()
            .withStreamName(stream).withPlaybackMode("ON_DEMAND").withHLSFragmentSelector(new HLSFragmentSelector()
                .withFragmentSelectorType("SERVER_TIMESTAMP").withTimestampRange(new HLSTimestampRange()
                    .withStartTimestamp(new Date(now.getTime() - 3_600_000)).withEndTimestamp(new Date(now.getTime() + 3_600_000)))))
            .getHLSStreamingSessionURL());
        URI playlist = last(master);
        for (String line : text(playlist).split("\n")) {
            if (!line.startsWith("#")) {
                byte[] segment = fetch(playlist.resolve(line));
                System.out.println("HLS segment " + segment.length + " " + line.replaceAll(".*FragmentNumber=(\\d+).*", "$1"));
            }
        }
        System.exit(0);
    }

    /** Each fragment with its times and blocks, as soon as its document is over. */
    private static void read(String operation, InputStream payload) throws Exception {
        StreamingMkvReader reader = StreamingMkvReader.createDefault(new InputStreamParserByteSource(payload));
        FragmentMetadataVisitor visitor = FragmentMetadataVisitor.create();
        Map<String, Integer> blocks = new LinkedHashMap<>();
        Map<String, FragmentMetadata> found = new HashMap<>();
        while (reader.mightHaveNext()) {
            Optional<MkvElement> element = reader.nextIfAvailable();
            if (!element.isPresent()) {
                continue;
            }
            element.get().accept(visitor);
            if (MkvTypeInfos.SIMPLEBLOCK.equals(element.get().getElementMetaData().getTypeInfo())) {
                FragmentMetadata fragment = visitor.getCurrentFragmentMetadata().get();
                blocks.merge(fragment.getFragmentNumberString(), 1, Integer::sum);
                found.put(fragment.getFragmentNumberString(), fragment);
            }
        }
        for (Map.Entry<String, Integer> fragment : blocks.entrySet()) {
            FragmentMetadata metadata = found.get(fragment.getKey());
            System.out.println(operation + " " + fragment.getKey() + " " + metadata.getProducerSideTimestampMillis() + " "
                + metadata.getServerSideTimestampMillis() + " " + fragment.getValue());
        }
    }

    private static byte[] fetch(URI address) throws Exception {
        return HttpClient.newHttpClient().send(HttpRequest.newBuilder(address).build(), BodyHandlers.ofByteArray()).body();
    }

    private static String text(URI address) throws Exception {
        return new String(fetch(address), "UTF-8");
    }

    private static URI last(URI address) throws Exception {
        String[] lines = text(address).split("\n");
        return address.resolve(lines[lines.length - 1]);
    }
}
