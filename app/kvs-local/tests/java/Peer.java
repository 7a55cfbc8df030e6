import com.amazonaws.auth.AWSCredentialsProvider;
import com.amazonaws.auth.AWSStaticCredentialsProvider;
import com.amazonaws.auth.BasicAWSCredentials;
import com.amazonaws.client.builder.AwsClientBuilder.EndpointConfiguration;
import com.amazonaws.services.kinesisvideo.*;
import com.amazonaws.services.kinesisvideo.model.*;
import java.io.FileInputStream;
import java.io.InputStream;
import java.net.URI;
import java.util.Date;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** Uploads a file with AWS's own client and reads it back: ENDPOINT STREAM FILE START_MS ACCESS_KEY SECRET_KEY. */
public class Peer {
    public static void main(String[] arguments) throws Exception {
        String stream = arguments[1];
        AWSCredentialsProvider credentials =
            new AWSStaticCredentialsProvider(new BasicAWSCredentials(arguments[4], arguments[5]));
        EndpointConfiguration control = new EndpointConfiguration(arguments[0], "us-west-2");
        AmazonKinesisVideo streams = AmazonKinesisVideoClientBuilder.standard()
            .withEndpointConfiguration(control).withCredentials(credentials).build();
        System.out.println("arn " + streams.createStream(
            new CreateStreamRequest().withStreamName(stream).withDataRetentionInHours(24)).getStreamARN());
        String data = endpoint(streams, stream, APIName.PUT_MEDIA);

        CountDownLatch over = new CountDownLatch(1);
        AmazonKinesisVideoPutMedia media = AmazonKinesisVideoPutMediaClient.builder()
            .withRegion("us-west-2").withEndpoint(URI.create(data)).withCredentials(credentials)
            .withConnectionTimeoutInMillis(10_000).withNumberOfThreads(1).build();
        InputStream payload = new FileInputStream(arguments[2]);
        media.putMedia(
            new PutMediaRequest().withStreamName(stream).withFragmentTimecodeType(FragmentTimecodeType.RELATIVE)
                .withProducerStartTimestamp(new Date(Long.parseLong(arguments[3]))).withPayload(payload),
            new PutMediaAckResponseHandler() {
                public void onAckEvent(AckEvent event) {
                    System.out.println("ack " + event.getAckEventType() + " " + event.getFragmentTimecode());
                }

                public void onFailure(Throwable problem) {
                    System.out.println("failure " + problem);
                    over.countDown();
                }

                public void onComplete() {
                    System.out.println("complete");
                    over.countDown();
                }
            });
        if (!over.await(60, TimeUnit.SECONDS)) {
            System.out.println("failure nothing more within 60 s");
        }
        media.close();

        AmazonKinesisVideoArchivedMedia archive = AmazonKinesisVideoArchivedMediaClientBuilder.standard()
            .withEndpointConfiguration(
                new EndpointConfiguration(endpoint(streams, stream, APIName.LIST_FRAGMENTS), "us-west-2"))
            .withCredentials(credentials).build();
        for (Fragment fragment : archive.listFragments(
                new ListFragmentsRequest().withStreamName(stream).withMaxResults(1000L)).getFragments()) {
            System.out.println("fragment " + fragment.getProducerTimestamp().getTime() + " "
                + fragment.getFragmentLengthInMilliseconds());
        }
        AmazonKinesisVideoMedia reader = AmazonKinesisVideoMediaClientBuilder.standard()
            .withEndpointConfiguration(
                new EndpointConfiguration(endpoint(streams, stream, APIName.GET_MEDIA), "us-west-2"))
            .withCredentials(credentials).build();
        InputStream answer = reader.getMedia(new GetMediaRequest().withStreamName(stream)
            .withStartSelector(new StartSelector().withStartSelectorType(StartSelectorType.EARLIEST))).getPayload();
        System.out.println("read " + answer.readAllBytes().length);
        System.exit(0);
    }

    private static String endpoint(AmazonKinesisVideo streams, String stream, APIName operation) {
        return streams.getDataEndpoint(
            new GetDataEndpointRequest().withStreamName(stream).withAPIName(operation)).getDataEndpoint();
    }
}
